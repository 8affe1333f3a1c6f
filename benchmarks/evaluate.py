"""What batching is worth in an evaluation: questions about pictures of the tiny world, one by one and as `evaluate` asks them.

    python benchmarks/evaluate.py [--pictures 250] [--questions 1000] [--json]

One by one is what a script would do that loads the model once and calls `ChatModel.answer` for each question, with nothing kept
between questions; it is the baseline of the same run. Answers of both ways are compared. `ratio` is of the time on the clock, `cpu_ratio` of
processor time, which does not feel what else runs on the machine.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipelines.own_python import hand_over  # noqa: E402

if __name__ == "__main__":
    hand_over(__file__)

from transformers import GenerationConfig  # noqa: E402

from demo import world  # noqa: E402
from pipelines import load_model  # noqa: E402
from pipelines.base import ImagePart  # noqa: E402
from pipelines.embedder import ImageFeatureCache  # noqa: E402
from pipelines.generation import ChatModel, message  # noqa: E402
from pipelines.prefix_cache import PrefixCache  # noqa: E402
from training.evaluate.models import LocalModel  # noqa: E402
from training.evaluate.tasks.base import Question  # noqa: E402


def questions(num_pictures: int, num_questions: int) -> list[Question]:
    """Questions about one picture each, in turn; every picture is asked about equally often."""
    rows = (row for row in world.exam(100_000, 1) if len(row["images"]) == 1 and len(row["messages"]) == 2)
    found = [next(rows) for _ in range(num_questions)]
    images = [found[number]["images"][0] for number in range(num_pictures)]
    texts = [row["messages"][0]["content"][-1]["text"] for row in found]
    return [Question(str(n), [message("user", text, 1)], [images[n % num_pictures]]) for n, text in enumerate(texts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=250)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    asked = questions(args.pictures, args.questions)
    loaded = load_model(ROOT / "demo/model")
    config = GenerationConfig(do_sample=False, max_new_tokens=96)

    alone = ChatModel(*loaded, cache=ImageFeatureCache(0), prefix_cache=PrefixCache(max_bytes=0))
    start, cpu_start = time.perf_counter(), time.process_time()
    one_by_one = [alone.answer(each.messages, [ImagePart.of(each.images[0])], config) for each in asked]
    baseline_s, baseline_cpu_s = time.perf_counter() - start, time.process_time() - cpu_start

    together: dict[int, object] = {}
    start, cpu_start = time.perf_counter(), time.process_time()
    LocalModel(ChatModel(*loaded), "demo", "", args.batch_size).answer(asked, [False] * len(asked), 96, together.update)
    batched_s, batched_cpu_s = time.perf_counter() - start, time.process_time() - cpu_start

    figures = {
        "questions": len(asked),
        "pictures": args.pictures,
        "one_by_one_s": round(baseline_s, 2),
        "evaluate_s": round(batched_s, 2),
        "ratio": round(batched_s / baseline_s, 3),
        "cpu_ratio": round(batched_cpu_s / baseline_cpu_s, 3),
        "equal_answers": sum(together[n] == answer for n, answer in enumerate(one_by_one)),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(figures) if args.json else "\n".join(f"{name:16} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
