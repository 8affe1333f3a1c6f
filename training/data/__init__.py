"""Data to learn from: rows, where they come from, and how they become batches."""

from .source import Row, RowFile, RowStream, open_source

__all__ = ["Row", "RowFile", "RowStream", "open_source"]
