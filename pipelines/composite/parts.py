"""A composite model as it lies on disk, before it is loaded or written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedConfig

from ..checkpoints.low_rank import LowRank, changed
from .processing import CompositeProcessor


@dataclass(frozen=True)
class Parts:
    """A model as it lies on disk: tensors are mapped, not read.

    Attributes:
        config: of the whole model.
        vision: the vision model's tensors, under its own names.
        language: the language model's tensors, under the names of a causal language model; None when it is not wanted.
        tokenizer_folder: where the tokenizer's files are.
        source: for errors.
        changes: weight of the language model to what adapters add to it.
        adapter: which adapter that is, for the model card.
        processor: of a model that is in memory; else the files in `tokenizer_folder` make it.
        generation_config: likewise.
    """

    config: PreTrainedConfig
    vision: dict[str, torch.Tensor]
    language: dict[str, torch.Tensor] | None
    tokenizer_folder: Path
    source: str
    changes: Mapping[str, tuple[LowRank, ...]] = field(default_factory=dict)
    adapter: str | None = None
    processor: CompositeProcessor | None = None
    generation_config: GenerationConfig | None = None

    def language_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, tensor) of the language model, the adapters merged in fp32, one at a time, in their own dtype."""
        for name, tensor in self.language.items():
            yield name, changed(tensor, self.changes.get(name, ()))
