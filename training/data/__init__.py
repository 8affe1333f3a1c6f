"""Data to learn from: rows, where they come from, and how they become batches."""

from .files import RowFile
from .rows import IGNORED, Row, RowError
from .source import RowStream, open_source

__all__ = ["IGNORED", "Row", "RowError", "RowFile", "RowStream", "open_source"]
