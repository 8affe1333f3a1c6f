"""What merging by plan asks of a family, so that `training/merge/` knows none.

A family whose models are put together tensor by tensor has a `MERGING` in its package, an object of a subclass of `Merging`. The names of
tensors are the family's canonical ones (`layouts.py`). `pipelines.registry.merging` finds it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .adapters import Adapter
from .layouts import Layout
from .offsets import StoredTensor
from .structure import read_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Part:
    """A part of a model as it lies on disk: a language model or a vision model.

    Attributes:
        folder: the folder that was given.
        config: its configuration: the language model's, or the family's with at least `vision_config`.
        tensors: canonical name to tensor, in the order of the files.
        files_folder: where its tokenizer and preprocessor settings lie.
        generation_folder: where its generation settings lie.
        unused: names of the tensors there that are no part of it, such as a text tower's.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]
    files_folder: Path
    generation_folder: Path
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class WholeModel:
    """A model that is to be written, without its weights.

    Attributes:
        text_config: the language model's `config.json`, its sizes right.
        vision: the family's `config.json` as far as it is about the vision model; None for a language model alone.
        dtype: of the weights.
        tokenizer_folder: whose tokenizer it has.
        preprocessor_folder: whose image processor it has.
    """

    text_config: dict[str, Any]
    vision: dict[str, Any] | None
    dtype: torch.dtype
    tokenizer_folder: Path
    preprocessor_folder: Path | None

    @property
    def vocab_size(self) -> int:
        return self.text_config["vocab_size"]


@dataclass(frozen=True)
class AdapterForm:
    """An adapter in another form.

    Attributes:
        weights: path of a weight file to its tensors.
        files: path of every other file to its content.
    """

    weights: dict[str, dict[str, StoredTensor]]
    files: dict[str, bytes]


class Merging(ABC):
    """A family, as far as merging is concerned.

    Attributes:
        label: what the user is told.
        model_type: of its configuration.
        text: how the names of the language model's tensors begin.
        layouts: name to layout, those in which a whole model is written.
        namings: ways to name a module that an adapter's `target_modules` may be about; see `checkpoints.adapters.check_targets`.
        adapter_forms: name of a form to what makes it of an adapter of a whole model.
        original_tokenizer_files: the tokenizer files that the original code opens, name to content, made of a folder's tokenizer;
            raises ValueError where they cannot be made.
        terms: a sentence about the family's own weights, for the model card.
    """

    label: str
    model_type: str
    text: str
    layouts: Mapping[str, Layout]
    namings: Sequence[Callable[[str], str]]
    adapter_forms: Mapping[str, Callable[[Adapter], AdapterForm]]
    original_tokenizer_files: Callable[[Path], dict[str, bytes]]
    terms: str

    def holds(self, folder: Path) -> bool:
        """Whether a folder's own configuration is the family's: a whole model, a vision model by itself, or an adapter."""
        return (folder / "config.json").is_file() and read_config(folder).get("model_type") == self.model_type

    @abstractmethod
    def layout(self, folder: Path) -> Layout:
        """The layout of a folder that `holds`.

        Raises:
            ValueError: it has none; says what is missing.
        """

    @abstractmethod
    def read_encoder(self, folder: Path) -> Part:
        """The vision encoder of a folder of its own, such as CLIP's, alone or with its text tower.

        Raises:
            FileNotFoundError, ValueError: there is none.
        """

    @abstractmethod
    def read_adapter(self, folder: Path) -> Adapter:
        """See `checkpoints.adapters.read_adapter`."""

    @abstractmethod
    def vision_fields(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """As far as a configuration of the family is about the vision model."""

    @abstractmethod
    def vision_model(self, vision: Mapping[str, Any], text_config: Mapping[str, Any]) -> nn.Module:
        """The vision model, its tensors under their canonical names, on the meta device."""

    @abstractmethod
    def additions(
        self, model: WholeModel, layout: Layout, shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, torch.Tensor | str]:
        """What the readers of a layout expect beside the model's weights: canonical name to values, or to the weight it repeats.

        Args:
            model: has a vision model.
            layout: of the folder.
            shapes: canonical name to shape of every weight.

        Raises:
            ValueError: the layout cannot hold the model.
        """

    @abstractmethod
    def files(self, model: WholeModel, layout: Layout) -> dict[str, bytes]:
        """Path to content of the files that only the family knows: configurations, the image processor's settings, a chat template
        with a place for pictures, and what a layout has instead of the tokenizer's ordinary files.

        Args:
            model: has a vision model.

        Raises:
            FileNotFoundError: an image processor's settings are missing.
        """

    @abstractmethod
    def load(self, folder: Path, bases: Mapping[str, Path], dtype: torch.dtype) -> "PreTrainedModel":
        """A whole model in evaluation mode, its processor as `processor`, without the adapter that the folder may be.

        Args:
            bases: `text_model` and `vision_model` under an adapter; empty for a whole model.
        """

    @abstractmethod
    def apply_adapter(self, model: "PreTrainedModel", folder: Path) -> None:
        """Put an adapter on a loaded model, in place: LoRA layers injected, whole tensors copied."""
