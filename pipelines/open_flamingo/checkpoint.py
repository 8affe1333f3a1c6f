"""What an OpenFlamingo model is made of, before it is made: configuration, tensors on the disk, tokenizer."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ..checkpoints.low_rank import LowRank, changed
from ..composite.tensors import check_finite
from .configuration_open_flamingo import OpenFlamingoConfig
from .layouts import PARTS

Tensors = dict[str, torch.Tensor]
(LANGUAGE,) = PARTS["language"]


@dataclass
class Checkpoint:
    """Everything a model is made of, before it is made.

    Attributes:
        config: its configuration, the id of `<image>` known.
        tensors: its weights under the names of `modeling_open_flamingo.py`, without the LoRA; they stay on disk until they are used.
        tokenizer, image_processor: what its processor is made of.
        generation_config: sampling defaults.
        chat_template: None for Multimodal-GPT's.
        changes: by the weight, what LoRA adds to it; see `merged`.
        source: for errors, and the folder of the language model's other files.
    """

    config: OpenFlamingoConfig
    tensors: Tensors
    tokenizer: PreTrainedTokenizerBase
    image_processor: CLIPImageProcessorPil
    generation_config: GenerationConfig
    chat_template: str | None = None
    changes: dict[str, tuple[LowRank, ...]] = field(default_factory=dict)
    source: Path = Path()

    def merged(self, dtype: torch.dtype | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """All weights with the LoRA in them, one after the other: a change is computed when it is its turn, in float32.

        Args:
            dtype: of the floating-point ones; as stored when absent.

        Raises:
            ValueError: a value is not finite.
        """
        for name, tensor in self.tensors.items():
            result = tensor
            if name in self.changes:
                result = changed(tensor.float(), self.changes[name])
            if result.is_floating_point():
                result = result.to(dtype or tensor.dtype)
            check_finite({name: result}, repr(str(self.source)))
            yield name, result


def language_tensors(tensors: Tensors) -> Tensors:
    """Those of the language model, under the names of its own files."""
    return {name.removeprefix(LANGUAGE): tensor for name, tensor in tensors.items() if name.startswith(LANGUAGE)}


def vision_tensors(tensors: Tensors) -> Tensors:
    """All others: what lies in `vision/`."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(PARTS["language"])}
