"""What a LoRA layer does to the rows of a weight: fp32 arithmetic, one block of rows at a time.

    W' = W + scale * B @ A                  and with DoRA   W' = m * W' / ||W'||, row by row

Source: PEFT (https://github.com/huggingface/peft), tuners/lora/layer.py and dora.py, version 0.18, Apache-2.0: the same
numbers.
"""

from dataclasses import dataclass

import torch

from .offsets import StoredTensor

TILE_ELEMENTS = 2**18
"""Elements that are in work at once: 1 MiB of fp32, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class LowRank:
    """One adapter's change of one weight.

    Attributes:
        a: (r, in), for a convolution (r, in, height, width), for an embedding (r, tokens).
        b: (out, r), for a convolution (out, r, 1, 1).
        scale: lora_alpha / r, or lora_alpha / sqrt(r).
        is_transposed: the weight is stored as (in, out): transformers' Conv1D, embeddings.
        magnitude: (out,) or (1, out): DoRA's m; None without DoRA.
    """

    a: StoredTensor
    b: StoredTensor
    scale: float
    is_transposed: bool = False
    magnitude: StoredTensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the weight it belongs to."""
        out, columns = self.b.shape[0], torch.Size(self.a.shape[1:]).numel()
        return (columns, out) if self.is_transposed else (out, columns)

    def factors(self) -> "Factors":
        """The matrices, read and ready."""
        a, b = self.a.read().float().flatten(1), self.b.read().float().flatten(1)
        magnitude = None if self.magnitude is None else self.magnitude.read().float().view(-1, 1)
        left, right = (a.T, b.T) if self.is_transposed else (b, a)
        return Factors(left.contiguous(), right.contiguous(), self.scale, magnitude)


def changed(weight: torch.Tensor, changes: tuple[LowRank, ...]) -> torch.Tensor:
    """A weight with adapters' changes, computed in fp32 and rounded once to its own dtype."""
    if not changes:
        return weight
    rows = weight.detach().to(torch.float32, copy=True).flatten(1)
    for change in changes:
        change.factors().apply(rows, 0)
    return rows.view(weight.shape).to(weight.dtype)


@dataclass(frozen=True)
class Factors:
    """`scale * left @ right` is added: left (rows, r), right (r, columns), fp32."""

    left: torch.Tensor
    right: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None

    def apply(self, rows: torch.Tensor, first_row: int) -> None:
        """Change rows of the weight in place.

        Args:
            rows: (n, columns), fp32.
            first_row: which row of the weight the first one is.
        """
        part = slice(first_row, first_row + len(rows))
        rows.addmm_(self.left[part], self.right, alpha=self.scale)
        if self.magnitude is not None:
            rows.mul_(self.magnitude[part] / torch.linalg.vector_norm(rows, dim=1, keepdim=True))


def convert_rows(
    source: torch.Tensor, target: torch.Tensor, factors: list[Factors], first_row: int, work: torch.Tensor
) -> None:
    """Cast a block of rows, and apply adapters on the way: rounded to the target's dtype first, as a model is that an adapter
    is loaded onto, then changed in fp32, then rounded once.

    Args:
        source: (n, columns).
        target: (n, columns), written.
        factors: of the adapters in order; none for a plain cast.
        first_row: which row of the weight the first one is.
        work: fp32, at least `TILE_ELEMENTS` elements and at least one row.
    """
    if not factors:
        target.copy_(source)
        return
    columns = source.shape[1]
    step = max(1, TILE_ELEMENTS // columns)
    for start in range(0, len(source), step):
        tile = source[start : start + step]
        rows = work[: tile.numel()].view(tile.shape)
        rows.copy_(tile if tile.dtype == target.dtype else tile.to(target.dtype))
        for change in factors:
            change.apply(rows, first_row + start)
        target[start : start + step].copy_(rows)
