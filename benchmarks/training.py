"""Tokens a second that training takes in: our loop with padded batches, with packed rows, and a bare PyTorch loop beside it.

    python benchmarks/training.py --json

All three learn the same rows with the same model, optimizer and number of threads, in one process after another's end: answers of very
different lengths (log-normal, median 40 words), a picture with each. *Padded* and *packed* are `python -m training train` without and
with `--packing true`; *bare* is forward, backward, clipping and a fused AdamW step over a DataLoader with the same collator and the same
batches. Tokens are those of rows; padding counts for nothing. Beside seconds of the clock stand seconds of the processor, which other
work on the machine disturbs less: on a CPU the ratios are of these.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import TrainerCallback

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from training.train import Run
from training.train.config import parse
from training.train.parts import learning_parameters

WORDS = ("red", "blue", "green", "circle", "square", "star", "top", "left", "right", "bottom")
WARM_UP = 3
"""Steps that are not measured."""


class Clock(TrainerCallback):
    """Clock and processor after every step."""

    def __init__(self):
        self.ticks: list[tuple[float, float]] = []

    def tick(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ticks.append((time.perf_counter(), time.process_time()))

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.tick()

    @property
    def spent(self) -> tuple[float, float]:
        """Seconds of the clock and of the processor from the end of the warm-up on."""
        return tuple(last - first for first, last in zip(self.ticks[WARM_UP - 1], self.ticks[-1], strict=True))


def write_rows(folder: Path, count: int, longest: int) -> Path:
    """Rows with answers of 1 to `longest` words."""
    rng, lines = random.Random(1), []
    for number in range(count):
        Image.new("RGB", (64, 64), tuple(rng.randrange(256) for _ in range(3))).save(folder / f"{number}.png")
        length = max(1, min(longest, round(rng.lognormvariate(3.7, 1.1))))
        answer = " ".join(rng.choices(WORDS, k=length))
        question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the picture."}]}
        row = {"messages": [question, {"role": "assistant", "content": answer}], "images": [f"{number}.png"]}
        lines.append(json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "rows.jsonl"


def make_run(options: argparse.Namespace, rows: Path, out: Path, *flags: str) -> Run:
    given = [
        "--model",
        options.model,
        "--source",
        str(rows),
        "--output_dir",
        str(out),
        "--train_parts",
        "connector",
        "language",
    ]
    given += [
        "--save_strategy",
        "no",
        "--report_to",
        "none",
        "--disable_tqdm",
        "true",
        "--logging_steps",
        "1000",
        "--seed",
        "1",
    ]
    given += ["--max_grad_norm", "1.0", "--optim", "adamw_torch_fused", "--dataloader_pin_memory", "false"]
    given += ["--bf16", "true"] if options.bf16 else []
    given += [] if torch.cuda.is_available() else ["--use_cpu", "true"]
    return Run(*parse([*given, *flags]))


def measured(tokens: list[int], clock: Clock) -> dict[str, float]:
    seconds, processor = clock.spent
    counted = sum(tokens[WARM_UP : len(clock.ticks)])
    return {
        "steps": len(clock.ticks) - WARM_UP,
        "tokens": counted,
        "tokens_per_s": round(counted / seconds, 1),
        "tokens_per_processor_s": round(counted / processor, 1),
    }


def through_trainer(run: Run, tokens_of) -> dict[str, float]:
    """Our loop; `tokens_of` says how many tokens of rows are in a batch."""
    tokens, collate, clock = [], run.collator, Clock()

    def counting(rows):
        batch = collate(rows)
        tokens.append(tokens_of(batch))
        return batch

    run.collator = counting
    trainer = run.make_trainer()
    trainer.add_callback(clock)
    trainer.train()
    return measured(tokens, clock)


def bare(run: Run, options: argparse.Namespace) -> dict[str, float]:
    """The same batches through a loop of ten lines."""
    arguments, model, clock, tokens = run.arguments, run.model.to(run.arguments.device), Clock(), []
    learning = list(learning_parameters(model).values())
    optimizer = torch.optim.AdamW(learning, lr=arguments.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    order = DataLoader(
        run.rows, options.batch, shuffle=True, collate_fn=run.collator, generator=torch.Generator().manual_seed(1)
    )
    autocast = torch.autocast(arguments.device.type, torch.bfloat16) if options.bf16 else contextlib.nullcontext()
    model.train()
    for batch in order:
        batch.pop("places")
        tokens.append(int(batch["attention_mask"].sum()))
        batch = {key: value.to(arguments.device) for key, value in batch.items()}
        with autocast:
            loss = model(**batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        clock.tick()
    return measured(tokens, clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="demo/model", help="folder to train (%(default)s)")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="rows of a padded batch (%(default)s)")
    parser.add_argument("--longest", type=int, default=480, help="words of an answer at most (%(default)s)")
    parser.add_argument("--max_length", type=int, default=768, help="tokens of a packed sequence (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds over the three loops; the median counts (%(default)s)")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"padded": [], "packed": [], "bare": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder, options.rows, options.longest)
        for repeat in range(options.repeats):
            batch = ["--per_device_train_batch_size", str(options.batch), "--num_train_epochs", "1"]
            run = make_run(options, rows, folder / f"padded-{repeat}", *batch)
            found["padded"].append(through_trainer(run, lambda batch: int(batch["attention_mask"].sum())))
            run = make_run(options, rows, folder / f"bare-{repeat}", *batch)
            found["bare"].append(bare(run, options))
            packs = ["--packing", "true", "--max_length", str(options.max_length), "--per_device_train_batch_size", "1"]
            steps = max(int(found["padded"][0]["tokens"] / options.max_length), WARM_UP + 2)
            run = make_run(options, rows, folder / f"packed-{repeat}", *packs, "--max_steps", str(steps))
            found["packed"].append(through_trainer(run, packed_tokens))
    key = "tokens_per_s" if torch.cuda.is_available() else "tokens_per_processor_s"
    middle = {loop: sorted(each, key=lambda one: one[key])[len(each) // 2] for loop, each in found.items()}
    report = {
        "model": options.model,
        "rows": options.rows,
        "batch": options.batch,
        "max_length": options.max_length,
        "loops": middle,
        "packed_over_padded": round(middle["packed"][key] / middle["padded"][key], 2),
        "trainer_overhead": round(middle["bare"][key] / middle["padded"][key] - 1, 3),
        "ratios_of": key,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
    }
    if options.json:
        print(json.dumps(report))
        return
    for loop, one in middle.items():
        print(f"{loop:8}{one['tokens_per_s']:>10} tokens/s {one['tokens_per_processor_s']:>10} tokens/s of the processor")
    print(
        f"packed over padded {report['packed_over_padded']}, our loop over the bare one {report['trainer_overhead']:+.1%} time"
    )


def packed_tokens(batch: dict) -> int:
    """Tokens of rows in a pack: what follows the last row counts its positions up from 0 with nothing to learn behind it."""
    labels = (batch["labels"][0] != -100).nonzero()
    return int(labels[-1]) + 1


if __name__ == "__main__":
    main()
