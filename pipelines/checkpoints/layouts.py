"""Layouts: under which names, in which subfolders, a family's tensors are stored. Pure renamings, each defined once.

A family names its tensors once (its canonical names, those that `PARTS` is written in) and says for every layout how they are stored,
as a table of prefixes. Reading and writing are that one table, used in the two directions:

    WEBUI = Layout(
        "webui",
        lambda folder: (folder / "vision" / "config.json").is_file(),
        Rename("vision_model.", "vision_model.", folder="vision"),
        Rename("", "text_model."),
    )
    WEBUI.read(folder)          # canonical name -> StoredTensor; nothing is read but headers
    WEBUI.place("text_model.lm_head.weight")    # -> Place(folder="", name="lm_head.weight")

Of several rows that fit a name the one with the longest prefix counts. A family whose published tensors are cut or fused, and not
only renamed (`query_key_value`), says so in functions of its own; they are no layouts.

Where it is used: a family's `layouts.py` holds `LAYOUTS`, a tuple in the order in which they are tried. `detect` finds the layout of a
folder; loading, merge, convert and doctor read and write by it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .offsets import StoredTensor
from .stored_tensors import model_tensors

NAMES = ("webui", "transformers", "original")
"""The layouts that a whole model of any family is written in."""


class Place(NamedTuple):
    """Where a tensor is stored.

    Attributes:
        folder: below the model's folder, "" for itself.
        name: in the weight file.
    """

    folder: str
    name: str


@dataclass(frozen=True)
class Rename:
    """One row: what begins with `stored` in the weight files of `folder` begins with `canonical` in the family's own names."""

    stored: str
    canonical: str
    folder: str = ""


class Layout:
    """One way in which a family's tensors are stored.

    Args:
        name: the user's word for it, such as "webui".
        detect: whether a folder has this layout, by its configuration and file names alone.
        renames: the table.
        ignored: ends of stored names that are computed today and not weights.
        suffixes: by subfolder, the kinds of weight files that are read there, the one that is written first; safetensors where
            nothing is said.
    """

    def __init__(
        self,
        name: str,
        detect: Callable[[Path], bool],
        *renames: Rename,
        ignored: Sequence[str] = (".position_ids", ".inv_freq"),
        suffixes: Mapping[str, Sequence[str]] | None = None,
    ):
        self.name, self.detect, self.renames, self.ignored = name, detect, renames, tuple(ignored)
        self.suffixes = {folder: tuple((suffixes or {}).get(folder, (".safetensors",))) for folder in self.folders}

    @property
    def folders(self) -> list[str]:
        """Subfolders that hold weights, in the order of the table."""
        return list(dict.fromkeys(rename.folder for rename in self.renames))

    def folder_of(self, prefix: str) -> str:
        """The subfolder that holds what begins with a canonical prefix of the table."""
        return next(rename.folder for rename in self.renames if rename.canonical == prefix)

    def canonical(self, stored: str, folder: str = "") -> str | None:
        """The family's name of a stored tensor; None when no row fits."""
        rows = [row for row in self.renames if row.folder == folder and stored.startswith(row.stored)]
        row = max(rows, key=lambda row: len(row.stored), default=None)
        return None if row is None else row.canonical + stored.removeprefix(row.stored)

    def place(self, canonical: str) -> Place | None:
        """Where a tensor is stored; None when no row fits."""
        rows = [row for row in self.renames if canonical.startswith(row.canonical)]
        row = max(rows, key=lambda row: len(row.canonical), default=None)
        return None if row is None else Place(row.folder, row.stored + canonical.removeprefix(row.canonical))

    def read(self, folder: Path, folders: Iterable[str] | None = None) -> dict[str, StoredTensor]:
        """Canonical name to tensor, of the given subfolders or all; nothing is read but headers.

        Raises:
            FileNotFoundError: weights are missing.
            ValueError: a file is broken, or holds a tensor that has no place in this layout or the place of another.
        """
        found: dict[str, StoredTensor] = {}
        for sub in self.folders if folders is None else folders:
            for stored, tensor in model_tensors(folder / sub).items():
                if stored.endswith(self.ignored):
                    continue
                name = self.canonical(stored, sub)
                if name is None or name in found:
                    what = "has no place in" if name is None else f"has the place of another ({name}) in"
                    raise ValueError(f"{str(tensor.file)!r} holds {stored!r}, which {what} layout {self.name!r}.")
                found[name] = tensor
        return found


def detect(folder: Path, layouts: Iterable[Layout]) -> Layout | None:
    """The first layout that a folder has; None when it has none of them."""
    return next((layout for layout in layouts if layout.detect(folder)), None)
