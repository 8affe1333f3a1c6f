"""The formats that data sets were published in, each a small class that makes rows of its records.

To add one: a subclass of `Format` in a file of this folder, a line in `FORMATS`, and an invented sample in
tests/training/test_training_data_formats.py.
"""

from .base import Format, Skipped
from .captions import Caption, CaptionShards, CcSbuAlign, CocoKarpathy
from .llava import Chat, Llava, LlavaFirstTurn, MplugOwl, ShareGPT
from .questions import AOkvqa, Gqa, Lrv, OcrVqa, Vqa
from .table import Table
from .texts import Alpaca, Baize, Dolly

FORMATS: dict[str, type[Format]] = {
    format.name: format
    for format in (
        *(Table, Llava, LlavaFirstTurn, MplugOwl, ShareGPT, Chat),
        *(Caption, CocoKarpathy, CcSbuAlign, CaptionShards, AOkvqa, OcrVqa, Vqa, Gqa, Lrv),
        *(Dolly, Alpaca, Baize),
    )
}

__all__ = ["FORMATS", "Format", "Skipped"]
