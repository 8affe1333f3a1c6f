"""FLOP/s of a LoRA stage in the shape of VisualCLA-7B through the trainer of `python -m training train`, on one GPU.

    python benchmarks/training_7b.py --json

The model is made on the GPU with random weights in bf16 (LLaMA 7B, CLIP ViT-L/14, a resampler of six layers), the parts that learn are
those of the preset `visualcla_instruct`, and the rows are full: a picture of 64 tokens, then text. The baseline is the first line, 8 rows
of 1,024 tokens without gradient checkpointing (needs 72 GiB); the others are ratios of it.

FLOP of a step, for T tokens in all in rows of S: 4 N T for the N frozen parameters of the language model (forward, and backward to what
goes in), 6 n T for the n that learn, 6 S W L T for causal attention over L layers of width W, 4 V P for P patches through the V
parameters of the vision encoder. The second forward pass of gradient checkpointing is work of the GPU and not of the model: not counted.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from pipelines.own_python import hand_over

if __name__ == "__main__":
    hand_over(__file__)

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.initialization import no_init_weights

from pipelines.visualcla import VisualCLAConfig, VisualCLAForConditionalGeneration
from training.train.config import parse
from training.train.parts import add_lora, choose_parameters
from training.train.trainer import PartsTrainer

IMAGE_TOKEN, NUM_QUERIES, PATCHES = 49956, 64, 257
PEAKS_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "V100": 125e12}
"""Dense arithmetic in 16 bits, as NVIDIA's data sheets give it."""
WARM_UP_STEPS, STEPS = 4, 14


def build(is_small: bool) -> VisualCLAForConditionalGeneration:
    """A model in the shape of VisualCLA-7B, or a small one in its structure."""
    width, inner, heads, layers = (256, 688, 4, 2) if is_small else (4096, 11008, 32, 32)
    text = {
        "model_type": "llama", "vocab_size": IMAGE_TOKEN + 1, "hidden_size": width, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "max_position_embeddings": 2048, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 2 if is_small else 24,
        "num_attention_heads": 16, "image_size": 224, "patch_size": 14, "projection_dim": 768,
    }  # fmt: skip
    resampler = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 1 if is_small else 6, "num_attention_heads": 16,
        "num_query_tokens": NUM_QUERIES, "layer_norm_eps": 1e-5, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    config = VisualCLAConfig(
        text_config=text, vision_config=vision, visual_resampler_config=resampler, image_token_id=IMAGE_TOKEN
    )
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"), no_init_weights():
            model = VisualCLAForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(torch.float32)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02)
    return model


class Rows(Dataset):
    """Full rows as the collator makes them; a third of the text is supervised."""

    def __init__(self, length: int, count: int):
        self.length, self.count = length, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(3, IMAGE_TOKEN - 900, (self.length,))
        ids[4 : 4 + NUM_QUERIES] = IMAGE_TOKEN
        labels = ids.clone()
        labels[: self.length * 2 // 3] = -100
        return {"input_ids": ids, "labels": labels, "pixel_values": torch.randn(3, 224, 224)}


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    return batch | {"attention_mask": torch.ones_like(batch["input_ids"])}


class Clock(TrainerCallback):
    def __init__(self):
        self.ticks: list[float] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ticks.append(time.perf_counter())


def preset_in(folder: str) -> list[str]:
    on_cpu = [] if torch.cuda.is_available() else ["--use_cpu", "true"]
    return ["--preset", "visualcla_instruct", "--model", "none", "--source", "none", "--output_dir", folder, *on_cpu]


class Stage:
    """The parts that learn, chosen once, and runs of some steps of them."""

    def __init__(self, model: VisualCLAForConditionalGeneration):
        recipe, _ = parse(preset_in("none"))
        self.model = model.train()
        add_lora(model, recipe)
        self.groups = choose_parameters(model, recipe.train_parts)
        device = next(model.parameters()).device
        for parameter in model.parameters():
            parameter.data = parameter.data.to(device)

    def run(self, rows: int, length: int, checkpointing: bool) -> dict:
        """Seconds of a step (the median after warming up), and what follows from them."""
        with tempfile.TemporaryDirectory() as folder:
            given = [*preset_in(folder), "--max_steps", str(STEPS), "--per_device_train_batch_size", str(rows)]
            given += ["--gradient_accumulation_steps", "1", "--gradient_checkpointing", str(checkpointing).lower()]
            given += ["--save_strategy", "no", "--report_to", "none", "--disable_tqdm", "true", "--lora_dropout", "0"]
            given += ["--logging_steps", str(STEPS + 1), "--dataloader_num_workers", "4"]
            clock = Clock()
            trainer = PartsTrainer(
                groups=self.groups, model=self.model, args=parse(given)[1], train_dataset=Rows(length, (STEPS + 2) * rows),
                data_collator=collate, callbacks=[clock],
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            trainer.train()
        steps = [after - before for before, after in zip(clock.ticks, clock.ticks[1:], strict=False)]
        step_s = statistics.median(steps[WARM_UP_STEPS - 1 :])
        flops = self.flop(rows, length) / step_s
        return {
            "rows": rows, "tokens_per_row": length, "gradient_checkpointing": checkpointing, "step_s": round(step_s, 4),
            "tokens_per_second": round(rows * length / step_s), "model_tflops": round(flops / 1e12, 2),
            "share_of_peak": round(flops / peak, 4) if (peak := peak_flops()) else None,
            "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if torch.cuda.is_available() else None,
        }  # fmt: skip

    def flop(self, rows: int, length: int) -> float:
        """Of the model's own arithmetic in one step; see the module."""
        text, tokens, named = self.model.config.text_config, rows * length, list(self.model.named_parameters())
        frozen = {name: parameter.numel() for name, parameter in named if not parameter.requires_grad}
        language = sum(count for name, count in frozen.items() if "text_model" in name) - text.vocab_size * text.hidden_size
        vision = sum(count for name, count in frozen.items() if "vision_model" in name)
        learning = sum(parameter.numel() for _, parameter in named if parameter.requires_grad)
        attention = 6 * length * text.hidden_size * text.num_hidden_layers
        return tokens * (4 * language + 6 * learning + attention) + 4 * vision * rows * PATCHES


def peak_flops() -> float | None:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((flops for known, flops in PEAKS_FLOPS.items() if known in name), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a small model, to see that it runs; on a CPU")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not (args.small or torch.cuda.is_available()):
        parser.error("there is no GPU; --small runs a small model on a CPU")
    stage = Stage(build(args.small))
    shapes = ((2, 128, False), (2, 128, True)) if args.small else ((8, 1024, False), (16, 1024, True))
    result = {
        "torch": torch.__version__, "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "parameters": sum(parameter.numel() for parameter in stage.model.parameters()), "runs": [],
    }  # fmt: skip
    for shape in shapes:
        try:
            run = stage.run(*shape)
        except torch.OutOfMemoryError as error:
            print(f"{shape}: {str(error)[:120]}", file=sys.stderr)
            continue
        baseline = result["runs"][0] if result["runs"] else run
        run["tokens_per_second_ratio"] = round(run["tokens_per_second"] / baseline["tokens_per_second"], 3)
        result["runs"].append(run)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{result['parameters'] / 1e9:.2f} G parameters, torch {result['torch']}, {result['device']}")
    columns = list(result["runs"][0]) if result["runs"] else []
    print(*(f"{name:>{len(name) + 2}}" for name in columns), sep="")
    for run in result["runs"]:
        print(*(f"{run[name]!s:>{len(name) + 2}}" for name in columns), sep="")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
