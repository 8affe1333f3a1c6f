"""Run by VLLM_PYTHON: greedy answers of several folders, one after another. Reads [[folder, [messages, ...]], ...], prints [[answer, ...], ...]."""

import gc
import json
import sys

if __name__ == "__main__":
    from vllm import LLM, SamplingParams
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    answers = []
    for folder, conversations in json.load(sys.stdin):
        model = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=2048, limit_mm_per_prompt={"image": 4}, seed=0)
        settings = SamplingParams(temperature=0, max_tokens=12)
        outputs = model.chat(conversations, settings, use_tqdm=False)
        answers.append([output.outputs[0].text for output in outputs])
        del model
        gc.collect()
        cleanup_dist_env_and_memory()
    print(f"ANSWERS {json.dumps(answers)}")
