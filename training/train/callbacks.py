"""What is seen while a run goes on: a log, curves, answers about held-out pictures; and how it is stopped."""

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, TrainerCallback

from pipelines.base import ImagePart
from pipelines.generation import ChatModel
from pipelines.images import ImageError, load_image
from pipelines.prefix_cache import PrefixCache

from ..data import Row
from ..data.rows import RowError, text_of
from .trainer import GIB, memory_in_use

LOG, CURVE, ANSWERS = "log.jsonl", "loss.png", "answers.jsonl"


class Log(TrainerCallback):
    """Writes every logged point to log.jsonl, and at the end the curves to loss.png.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.points: list[dict] = []

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """What an interrupted run has logged behind the checkpoint that this one goes on from is logged again."""
        if not state.is_world_process_zero:
            return
        path = self.folder / LOG
        lines = path.read_text(encoding="utf-8").splitlines() if state.global_step and path.is_file() else []
        self.points = [point for line in lines if (point := _parsed(line)) and point["step"] <= state.global_step]
        path.write_text("".join(json.dumps(point) + "\n" for point in self.points), encoding="utf-8")

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if not state.is_world_process_zero or not logs:
            return
        point = {"step": state.global_step, **logs}
        self.points.append(point)
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(point) + os.linesep)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        if state.is_world_process_zero:
            curves = {key: [(p["step"], p[key]) for p in self.points if key in p] for key in ("loss", "eval_loss")}
            if curves["loss"]:
                draw_curves(curves, self.folder / CURVE)


def _parsed(line: str) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:  # a line that a kill has cut
        return None


def draw_curves(curves: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Losses over steps as a picture, on a logarithmic axis; a single value becomes a dot."""
    from matplotlib.figure import Figure

    names = {"loss": "training", "eval_loss": "held out"}
    figure = Figure(figsize=(6, 4), layout="tight")
    axes = figure.subplots()
    for key, points in curves.items():
        if points:
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None, label=names[key])
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, dpi=120, format="png")
    partial.rename(path)


class Pace(TrainerCallback):
    """Says after the first steps how long the run will take, and what memory it took until then."""

    MEASURED = 5
    """Steps that are measured, after one that is not: it makes what later ones find."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if len(self.ends) > self.MEASURED:
            return
        self.ends.append(time.perf_counter())
        if len(self.ends) == self.MEASURED + 1 and state.is_world_process_zero:
            step_s = (self.ends[-1] - self.ends[0]) / self.MEASURED
            left = state.max_steps - state.global_step
            print(
                f"a step takes {step_s:.2f} s: {left} more take about {duration(left * step_s)}; {memory_in_use() / GIB:.2f} GiB "
                "in use"
            )


def duration(seconds: float) -> str:
    """
    >>> duration(3700), duration(90), duration(5)
    ('1 h 2 min', '2 min', '5 s')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class Interrupt(TrainerCallback):
    """Ctrl-C, or a scheduler's SIGTERM: the step is finished, a checkpoint is written, and the run ends. A second one kills."""

    def __init__(self):
        self.is_asked = False
        self.before: dict[int, Any] = {}

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self.restore()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if self.is_asked:
            control.should_save = control.should_training_stop = True

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _ask(self, number: int, frame: Any) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
        print("\nInterrupted: the step is finished and saved. Once more to stop at once.", file=sys.stderr)


class Answers(TrainerCallback):
    """After every evaluation: what the model says about some held-out pictures, in answers.jsonl and as a picture grid.

    Args:
        folder: of the run.
        model, processor: what is trained.
        rows: held-out rows, each with a picture.
    """

    def __init__(self, folder: Path, model: Any, processor: Any, rows: Sequence[Row]):
        self.folder, self.model, self.processor, self.rows = folder, model, processor, rows

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        if not state.is_world_process_zero or not self.rows:
            return
        chat = ChatModel(self.model, self.processor, prefix_cache=PrefixCache(max_bytes=0))
        config = GenerationConfig(do_sample=False, max_new_tokens=64)
        cells = []
        for row in self.rows:
            question = first_question(row)
            images = [ImagePart.of(load_image(image, background="white")) for image in row["images"][: _num_images(question)]]
            answer = chat.answer(question, images, config)
            cells.append((images[0].open(), text_of(question[-1]), text_of(row["messages"][len(question)]), answer))
        with (self.folder / ANSWERS).open("a", encoding="utf-8") as file:
            for _, asked, wanted, answer in cells:
                line = {"step": state.global_step, "question": asked, "wanted": wanted, "answer": answer}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        draw_grid(cells, self.folder / f"answers-{state.global_step}.png")


def first_question(row: Row) -> list[dict]:
    """The messages of a row up to its first question."""
    end = next(at for at, message in enumerate(row["messages"]) if message["role"] == "user") + 1
    return list(row["messages"][:end])


def _num_images(messages: Sequence[dict]) -> int:
    items = [item for message in messages if not isinstance(message["content"], str) for item in message["content"]]
    return sum(item["type"] == "image" for item in items)


def rows_with_pictures(rows: Any, count: int) -> list[Row]:
    """The first rows whose first question shows a picture that opens."""
    found: list[Row] = []
    for index in range(len(rows)):
        if len(found) == count:
            break
        row = rows[index]
        if not row.get("images") or "error" in row or not _num_images(first_question(row)):
            continue
        try:
            load_image(row["images"][0])
        except (ImageError, RowError, OSError):
            continue
        found.append(row)
    return found


def draw_grid(cells: Sequence[tuple[Any, str, str, str]], path: Path) -> None:
    """Pictures with what was asked, wanted and answered, side by side."""
    from textwrap import fill

    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(cells), 4.5), layout="tight")
    for axes, (image, asked, wanted, answer) in zip(figure.subplots(1, len(cells), squeeze=False)[0], cells, strict=True):
        axes.imshow(image.convert("RGB"))
        axes.axis("off")
        text = "\n".join(
            fill(f"{name}: {words[:160]}", 36) for name, words in (("Q", asked), ("wanted", wanted), ("A", answer))
        )
        axes.set_title(text.replace("$", r"\$"), fontsize=7, loc="left")
    partial = path.with_name(f".{path.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # characters that matplotlib's font has not are boxes; the file has them
        figure.savefig(partial, dpi=100, format="png")
    partial.rename(path)
