"""What a written model consists of: the words that planning and writing share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.checkpoints.offsets import StoredTensor

from .lora import LowRank
from .parts import Part


@dataclass(frozen=True)
class Product:
    """A tensor of the merged model: read, changed by adapters, cast.

    Attributes:
        source: where it is read; or a value that is written as it is.
        dtype: what it is written as.
        changes: of the adapters, in order.
    """

    source: StoredTensor | torch.Tensor
    dtype: torch.dtype
    changes: tuple[LowRank, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape)

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass
class MergePlan:
    """The merged model.

    Attributes:
        products: composite name to tensor.
        text_config: the language model's `config.json`, its sizes right.
        eyes_config: VisualCLA's `config.json` as far as it is about the eyes; None for a language model alone.
        text: the language model that it started from.
        tokenizer_folder: whose tokenizer it has.
        preprocessor_folder: whose image processor it has.
        inputs: role and folder of everything it is made of, in order.
    """

    products: dict[str, Product]
    text_config: dict[str, Any]
    eyes_config: dict[str, Any] | None
    text: Part
    tokenizer_folder: Path
    preprocessor_folder: Path | None
    inputs: list[tuple[str, Path]]

    @property
    def vocab_size(self) -> int:
        return self.text_config["vocab_size"]

    @property
    def input_files(self) -> list[Path]:
        """Every weight file that is read, in order."""
        sources = [product.source for product in self.products.values()]
        sources += [t for p in self.products.values() for c in p.changes for t in (c.a, c.b, c.magnitude)]
        return list(dict.fromkeys(source.file for source in sources if isinstance(source, StoredTensor)))
