"""The models of a page: one at a time is loaded, and the doctor says of each folder what it is and whether it fits."""

import gc
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipelines.doctor import FLAGS, GIB, Report, examine, size
from pipelines.registry import FAMILIES

from .cli import one_line
from .reasons import reason_in
from .session import SharedModel
from .texts import TEXTS

if TYPE_CHECKING:
    from pipelines.generation import ChatModel

MAX_CHARACTERS = 400
"""Of a reason."""


class Models:
    """Models that a page can answer with.

    Args:
        models: with names of their own; the page begins with the first.
    """

    def __init__(self, models: Sequence[SharedModel]):
        self._models = {model.name: model for model in models}
        self._reports: dict[str, Report] = {}
        self._bits, self._device = 16, "cpu"
        self._lock, self._news = threading.Lock(), threading.Condition()

    def __iter__(self) -> Iterator[SharedModel]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def __getitem__(self, name: str) -> SharedModel:
        """By name; where there is none, the one that is loaded, and before that the first."""
        return self._models.get(name) or next((model for model in self if model.is_loaded), next(iter(self)))

    def usable(self, name: str) -> SharedModel:
        """The same, but for one that the doctor is known to refuse."""
        model = self[name]
        return self[""] if model.name in self._reports and self.offer(model, "en")[1] else model

    def load(self, model: SharedModel) -> "ChatModel":
        """One of them, in place of the one that was loaded. Nobody else may use that one meanwhile.

        Raises:
            Whatever loading raised.
        """
        with self._lock:
            others = [other for other in self if other is not model and other.is_loaded]
            for other in others:
                other.unload()
            if others:
                _free_memory()
            return model.get()

    def examine(self, bits: int, device: str) -> None:
        """Ask the doctor about each folder, which takes seconds each.

        Args:
            bits: in which they are loaded.
            device: where, "cpu" or "cuda".
        """
        self._bits, self._device = bits, device
        for model in self:
            if model.folder is not None:
                try:
                    report = examine(model.folder, device, reads_weights=False)  # of every model in a folder
                except Exception as error:  # whatever is wrong with a folder is wrong with that folder only
                    report = Report(str(model.folder), missing=[one_line(error)])
                with self._news:
                    self._reports[model.name] = report
                    self._news.notify_all()

    def wait_for_news(self, num_examined: int) -> int:
        """Wait until more folders are examined than there were; how many are now. At once where all are."""
        with self._news:
            self._news.wait_for(lambda: len(self._reports) > num_examined or len(self._reports) == self.num_folders)
            return len(self._reports)

    @property
    def num_folders(self) -> int:
        return sum(model.folder is not None for model in self)

    def offer(self, model: SharedModel, language: str) -> tuple[str, bool]:
        """The doctor's line for a model, and whether it is refused."""
        texts, report = TEXTS[language], self._reports.get(model.name)
        if model.folder is None:
            return "", False
        if report is None:
            return texts["unexamined"], not model.is_loaded
        if report.missing or report.foreign or not report.memory or report.family is None:
            reasons = report.missing[:1] or [report.foreign or texts["no eyes"], *report.next[:1]]
            return texts["refused"].format(reason=reason_in(language, " · ".join(reasons))[:MAX_CHARACTERS]), True
        need, free = report.memory[self._bits]["needed_gib"], self._free_gib()
        line = texts["offer"].format(
            kind=_kind(report, language), needed=size(need * GIB), free=size(free * GIB), bits=self._bits
        )
        if model.is_loaded or need <= free:
            return line, False
        smaller = [bits for bits in (16, 8, 4) if bits < self._bits and report.memory[bits]["needed_gib"] <= free]
        advice = texts["smaller"].format(flag=FLAGS[smaller[0]]) if smaller else ""
        return texts["refused"].format(reason=f"{texts['too large']} {line}{advice}"), True

    def _free_gib(self) -> float:
        """Memory for another model: what is free, and what the loaded one gives back."""
        from pipelines.memory import available_bytes

        loaded = [self._reports[model.name] for model in self if model.is_loaded and model.name in self._reports]
        back = sum(report.memory[self._bits]["needed_gib"] for report in loaded if report.memory)
        return available_bytes(self._device) / GIB + back


def _kind(report: Report, language: str) -> str:
    whole = FAMILIES[report.family]
    return whole if language == "en" else reason_in(language, whole.partition(":")[0]).replace(" and ", "、")


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
