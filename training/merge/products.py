"""What a written model consists of: the words that planning and writing share."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.checkpoints.low_rank import LowRank
from pipelines.checkpoints.merging import Merging, Part, WholeModel
from pipelines.checkpoints.offsets import StoredTensor


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
        family: whose names the tensors have.
        products: canonical name to tensor.
        model: what is written beside the weights.
        text: the language model that it started from.
        inputs: role and folder of everything it is made of, in order.
        unused: by folder, the tensors in it that are no part of the model.
    """

    family: Merging
    products: dict[str, Product]
    model: WholeModel
    text: Part
    inputs: list[tuple[str, Path]]
    unused: dict[Path, list[str]]

    @property
    def has_vision(self) -> bool:
        return self.model.vision is not None

    @property
    def input_files(self) -> list[Path]:
        """Every weight file that is read, in order."""
        sources = [product.source for product in self.products.values()]
        sources += [t for p in self.products.values() for c in p.changes for t in (c.a, c.b, c.magnitude)]
        return list(dict.fromkeys(source.file for source in sources if isinstance(source, StoredTensor)))

    @property
    def notes(self) -> list[str]:
        """What the user is told of the tensors that are left out, a sentence for each folder."""
        return [
            f"Not used: {len(names)} tensors of {str(folder)!r}, which are no part of this model, such as {', '.join(names[:2])}."
            for folder, names in self.unused.items()
            if names
        ]
