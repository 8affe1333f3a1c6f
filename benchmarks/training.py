"""Tokens a second that training takes in: our loop with padded batches and with packed rows, beside a bare PyTorch loop and nanoVLM's.

    python benchmarks/training.py --json

All four learn the same rows with the same model, optimizer and number of threads: answers of very different lengths (log-normal, median
40 words), a picture with each. *Padded* and *packed* are `python -m training train` without and with `--packing true`. *Bare* is forward,
backward, clipping and a fused AdamW step over the very batches of *padded*. *nanoVLM* is written after that project's training loop: rows
packed beforehand, in a thread, by its greedy knapsack, with what it measures and sets at every step; its rows see the ones before them.
In each round the loops follow each other, in turn from the first to the last and from the last to the first; a ratio is of the two loops
of one round, and the median over rounds counts. Tokens are those of rows; padding counts for nothing. Beside seconds of the clock stand
seconds of the processor, which other work on the machine disturbs less: on a CPU the ratios are of these.
"""

import argparse
import contextlib
import json
import os
import platform
import queue
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from pipelines.own_python import hand_over

if __name__ == "__main__":
    hand_over(__file__)

import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from training.data.collator import join_inputs
from training.data.encode import Encoded
from training.train import Run
from training.train.config import parse
from training.train.parts import learning_parameters

WORDS = ("red", "blue", "green", "circle", "square", "star", "top", "left", "right", "bottom")
LOGGING_STEPS = 20


class Clock(TrainerCallback):
    """Clock and processor before the first batch is made, and after every step."""

    def __init__(self):
        self.ticks: list[tuple[float, float]] = []

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.tick()

    def tick(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ticks.append((time.perf_counter(), time.process_time()))

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.tick()


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
    given += ["--save_strategy", "no", "--report_to", "none", "--disable_tqdm", "true", "--logging_steps", str(LOGGING_STEPS)]
    given += ["--max_grad_norm", "1.0", "--optim", "adamw_torch_fused", "--dataloader_pin_memory", "false", "--seed", "1"]
    given += ["--train_sampling_strategy", "sequential"]  # the rows are written in no order
    given += ["--bf16", "true"] if options.bf16 else []
    given += [] if torch.cuda.is_available() else ["--use_cpu", "true"]
    return Run(*parse([*given, *flags]))


def measured(tokens: list[int], clock: Clock) -> dict[str, float]:
    seconds, processor = (last - first for first, last in zip(clock.ticks[0], clock.ticks[-1], strict=True))
    counted = sum(tokens[: len(clock.ticks) - 1])
    return {
        "steps": len(clock.ticks) - 1,
        "tokens": counted,
        "tokens_per_s": round(counted / seconds, 1),
        "tokens_per_processor_s": round(counted / processor, 1),
    }


def warm_up(run: Run) -> None:
    """Forward and backward once, outside of what is measured: it makes what later ones find."""
    model = run.model.to(run.arguments.device)
    collator = getattr(run.collator, "packing", run.collator).collator
    rows = getattr(run.rows, "rows", run.rows)  # a packed run wraps them
    batch = collator([rows[0]])
    model.train()(**{key: value.to(run.arguments.device) for key, value in batch.items()})["loss"].backward()
    model.zero_grad()


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
    learning, optimizer = _optimizer(run)
    autocast = _autocast(run, options)
    clock.tick()
    for batch in DataLoader(run.rows, options.batch, collate_fn=run.collator):
        batch.pop("places")
        tokens.append(int(batch["attention_mask"].sum()))
        batch = {key: value.to(arguments.device) for key, value in batch.items()}
        with autocast:
            loss = model(**batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.tick()
    return measured(tokens, clock)


def nanovlm(run: Run, options: argparse.Namespace) -> dict[str, float]:
    """nanoVLM's loop over our model and rows.

    Source: https://github.com/huggingface/nanoVLM, train.py and data/advanced_datasets.py, commit 4e0c096, Apache-2.0; written anew.
        What differs: our model, tokens and optimizer settings; no five spare sequences, which are nothing among its thousands;
        evaluation, W&B and several processes are left out.
    """
    arguments, model, clock, tokens = run.arguments, run.model.to(run.arguments.device), Clock(), []
    learning, optimizer = _optimizer(run)
    autocast = _autocast(run, options)
    clock.tick()
    for step, (batch, counted) in enumerate(_ahead(knapsacks(run, options.max_length))):
        tokens.append(counted)
        batch = {key: value.to(arguments.device) if torch.is_tensor(value) else value for key, value in batch.items()}
        with autocast:
            loss = model(**batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = arguments.learning_rate / (1 + step)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        batch["attention_mask"].sum().item()
        clock.tick()
    return measured(tokens, clock)


def _optimizer(run: Run) -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
    learning = list(learning_parameters(run.model).values())
    return learning, torch.optim.AdamW(
        learning, lr=run.arguments.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )


def _autocast(run: Run, options: argparse.Namespace) -> contextlib.AbstractContextManager:
    return torch.autocast(run.arguments.device.type, torch.bfloat16) if options.bf16 else contextlib.nullcontext()


def knapsacks(run: Run, length: int) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
    """All rows as sequences of `length` tokens with the number of tokens of rows: the longest row first, each into the emptiest one."""
    encode = run.collator.collator.encode  # not the one that counts
    rows = sorted((encode(run.rows[index]) for index in range(len(run.rows))), key=lambda row: -len(row.ids))
    loads = [0] * -(-sum(len(row.ids) + 1 for row in rows) // length)
    sacks: list[list[Encoded]] = [[] for _ in loads]
    for row in rows:
        at = min(range(len(loads)), key=loads.__getitem__)
        if loads[at] + len(row.ids) + 1 > length:
            loads.append(0)
            sacks.append([])
            at = -1
        loads[at] += len(row.ids) + 1
        sacks[at].append(row)
    random.Random(1).shuffle(sacks)
    pad = run.collator.collator.pad_token_id
    for sack in filter(None, sacks):
        ids, mask, labels = [], [], []
        for row in sack:
            ids += [*row.ids, pad]
            mask += [1] * len(row.ids) + [0]
            labels += [*row.labels, -100]
        rest = length - len(ids)
        filled = {"input_ids": ids + [pad] * rest, "attention_mask": mask + [0] * rest, "labels": labels + [-100] * rest}
        yield (
            {
                **{key: torch.tensor([value]) for key, value in filled.items()},
                **join_inputs(sack, length, in_a_row=True),
                "use_cache": False,
            },
            sum(mask),
        )


def _ahead(items: Iterable) -> Iterator:
    """The same, made in a thread that is at most two items ahead."""
    made: queue.Queue = queue.Queue(maxsize=2)
    end = object()

    def make() -> None:
        for item in items:
            made.put(item)
        made.put(end)

    threading.Thread(target=make, daemon=True).start()
    while (item := made.get()) is not end:
        yield item


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="demo/model", help="folder to train (%(default)s)")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="rows of a padded batch (%(default)s)")
    parser.add_argument("--longest", type=int, default=480, help="words of an answer at most (%(default)s)")
    parser.add_argument("--max_length", type=int, default=768, help="tokens of a packed sequence (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds over the four loops (%(default)s)")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"padded": [], "bare": [], "packed": [], "nanovlm": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder, options.rows, options.longest)
        batch = ["--per_device_train_batch_size", str(options.batch), "--num_train_epochs", "1"]
        packs = ["--packing", "true", "--max_length", str(options.max_length), "--per_device_train_batch_size", "1"]
        for repeat in range(options.repeats):
            for loop in list(found)[:: -1 if repeat % 2 else 1]:
                steps = int(found["padded"][0]["tokens"] / options.max_length) if found["padded"] else 0
                flags = [*packs, "--max_steps", str(steps)] if loop == "packed" else batch
                run = make_run(options, rows, folder / f"{loop}-{repeat}", *flags)
                warm_up(run)
                if loop == "bare":
                    result = bare(run, options)
                elif loop == "nanovlm":
                    result = nanovlm(run, options)
                else:
                    result = through_trainer(run, packed_tokens if loop == "packed" else padded_tokens)
                found[loop].append(result)
                print(f"round {repeat + 1}, {loop}: {result}", file=sys.stderr, flush=True)
    key = "tokens_per_s" if torch.cuda.is_available() else "tokens_per_processor_s"
    report = {
        "model": options.model,
        "rows": options.rows,
        "batch": options.batch,
        "max_length": options.max_length,
        "loops": {
            loop: sorted(each, key=lambda one: one[key])[(len(each) - 1) // 2] | {"rounds": len(each)}
            for loop, each in found.items()
        },
        "packed_over_padded": ratio(found["packed"], found["padded"], key),
        "packed_over_nanovlm": ratio(found["packed"], found["nanovlm"], key),
        "trainer_overhead": round(ratio(found["bare"], found["padded"], key) - 1, 3),
        "ratios_of": key,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
    }
    if options.json:
        print(json.dumps(report))
        return
    for loop, one in report["loops"].items():
        print(f"{loop:8}{one['tokens_per_s']:>10} tokens/s {one['tokens_per_processor_s']:>10} tokens/s of the processor")
    print(
        f"packed over padded {report['packed_over_padded']}, packed over nanoVLM's {report['packed_over_nanovlm']}, our loop over the "
        f"bare one {report['trainer_overhead']:+.1%} time"
    )


def ratio(ours: list[dict[str, float]], other: list[dict[str, float]], key: str) -> float:
    """How many times as fast, in the middle round."""
    return round(statistics.median(one[key] / two[key] for one, two in zip(ours, other, strict=True)), 3)


def padded_tokens(batch: dict) -> int:
    return int(batch["attention_mask"].sum())


def packed_tokens(batch: dict) -> int:
    """Tokens of rows in a pack: what follows the last row counts its positions up from 0 with nothing to learn behind it."""
    labels = (batch["labels"][0] != -100).nonzero()
    return int(labels[-1]) + 1


if __name__ == "__main__":
    main()
