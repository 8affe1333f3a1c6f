"""What a merged model consists of, worked out from headers before a single weight is read.

Each adapter is laid over the parts in its turn. Every tensor of it must find its place, every size must fit, and the base must
be the recorded one: an adapter that is half merged answers, and answers wrongly.
"""

from pathlib import Path
from typing import Any

import torch

from pipelines.checkpoints.adapters import Adapter
from pipelines.checkpoints.merging import Merging, Part, WholeModel
from pipelines.checkpoints.overlay import Overlay
from pipelines.checkpoints.structure import language_model, read_config
from pipelines.registry import merging
from pipelines.tokenization import TOKENIZER_FILES, has_tokenizer, load_tokenizer

from .checks import (
    TEXT_CONFIG_FIELDS,
    VISION_CONFIG_FIELDS,
    check_base_name,
    check_recorded,
    check_tokenizer_goes_on,
)
from .parts import read_language_model, read_vision_model
from .products import MergePlan, Product
from .structure import vision_fields, vision_modules, vision_shapes, without_paths


def plan_merge(text_model: Path, vision_model: Path | None, adapters: list[Path], dtype: torch.dtype | None) -> MergePlan:
    """Plan a merge.

    Args:
        text_model: a language model, or a whole model.
        vision_model: a vision encoder, or a family's vision model; None takes that of `text_model`, or makes a language model alone.
        adapters: applied in order.
        dtype: of the result; None takes the language model's, and without adapters leaves every tensor as it is.

    Raises:
        FileNotFoundError, ValueError: something is missing or does not fit; names it.
    """
    family = merging(text_model, *([] if vision_model is None else [vision_model]), *adapters)
    text = read_language_model(text_model, family)
    if vision_model is None and (family.holds(text_model) or family.holds(text_model / "vision")):
        vision_model = text_model
    vision = None if vision_model is None else read_vision_model(vision_model, family)
    work = _Merge(family, text, vision)
    for folder in adapters:
        work.apply(family.read_adapter(folder))
    return work.finish(dtype)


class _Merge:
    """The state between two adapters."""

    def __init__(self, family: Merging, text: Part, vision: Part | None):
        self.family, self.text, self.vision = family, text, vision
        self.text_config = without_paths(text.config)
        self.vision_config = None if vision is None else vision_fields(family, vision.config)
        prefix = family.text
        stored = {name.removeprefix(prefix): tensor for name, tensor in text.tensors.items()}
        structure = language_model(text.config, stored, text.folder)
        self.overlay = Overlay({**text.tensors, **({} if vision is None else vision.tensors)}, structure, prefix)
        self.tokenizer_folder = text.files_folder if has_tokenizer(text.files_folder) else None
        self.tokenizer = None if self.tokenizer_folder is None else load_tokenizer(self.tokenizer_folder)
        self.preprocessor_folder = None if vision is None else vision.files_folder
        self.inputs = [("language model", text.folder)]
        if vision is not None and vision.folder != text.folder:
            self.inputs.append(("vision encoder", vision.folder))

    def apply(self, adapter: Adapter) -> None:
        rows_before = self.overlay.num_rows
        is_first = not any(role == "adapter" for role, _ in self.inputs)
        if is_first and (not adapter.is_whole or self.vision is None or self.vision.folder == self.text.folder):
            check_base_name(adapter, self.text.folder, self.family)
        if adapter.is_whole and self.vision is None:
            raise ValueError(
                f"The adapter {str(adapter.folder)!r} was made for a whole {self.family.label} model: give the vision encoder too "
                "(--vision_model)."
            )
        vision = self.vision_config
        modules = vision_modules(self.family, vision, self.text_config) if adapter.is_whole else ()
        places = None if vision is None else self._vision_places(adapter)
        self.overlay.apply(adapter, modules, self.family.namings, places)
        self._take_tokenizer(adapter)
        if adapter.is_whole:
            self._take_vision_config(adapter, rows_before)
        self.inputs.append(("adapter", adapter.folder))

    def _vision_places(self, adapter: Adapter) -> dict[str, Any]:
        recorded = vision_fields(self.family, _recorded_config(adapter)) if adapter.is_whole else {}
        vision = {**self.vision_config, **recorded, "vision_config": self.vision_config["vision_config"]}
        return vision_shapes(self.family, vision, self.text_config)

    def _take_tokenizer(self, adapter: Adapter) -> None:
        if not has_tokenizer(adapter.folder):
            return
        tokenizer = load_tokenizer(adapter.folder)
        if len(tokenizer) > self.overlay.num_rows:
            raise ValueError(
                f"The tokenizer of {str(adapter.folder)!r} has {len(tokenizer)} tokens but the model only {self.overlay.num_rows} "
                "embeddings, and the adapter brings none: it was saved without embed_tokens and lm_head (modules_to_save)."
            )
        if self.tokenizer is not None:
            check_tokenizer_goes_on(self.tokenizer, self.tokenizer_folder, tokenizer, adapter.folder)
        self.tokenizer, self.tokenizer_folder = tokenizer, adapter.folder

    def _take_vision_config(self, adapter: Adapter, rows_before: int) -> None:
        recorded = _recorded_config(adapter)
        if not recorded:
            return
        recorded_text, recorded_vision = recorded.get("text_config") or {}, recorded.get("vision_config") or {}
        given = self.vision_config["vision_config"]
        check_recorded("language model", recorded_text, adapter.folder, self.text_config, self.text.folder, TEXT_CONFIG_FIELDS)
        check_recorded("vision encoder", recorded_vision, adapter.folder, given, self.vision.folder, VISION_CONFIG_FIELDS)
        recorded_rows = recorded_text.get("vocab_size")
        if recorded_rows not in (None, rows_before, self.overlay.num_rows):
            raise ValueError(
                f"{str(adapter.folder)!r} was trained on a language model with {recorded_rows} tokens, but here it has "
                f"{rows_before}. Give that model as text_model, or the adapters that lead to it before this one; if the record is "
                "wrong, correct text_config.vocab_size in the config.json of a copy of the adapter."
            )
        self.vision_config = {**self.vision_config, **vision_fields(self.family, recorded), "vision_config": given}
        if (adapter.folder / "preprocessor_config.json").is_file():
            self.preprocessor_folder = adapter.folder

    def finish(self, dtype: torch.dtype | None) -> MergePlan:
        if self.tokenizer_folder is None:
            given = [str(folder) for _, folder in self.inputs]
            raise ValueError(
                f"None of {given} holds a tokenizer ({' or '.join(TOKENIZER_FILES)}). Copy it into the text model."
            )
        if self.vision_config is not None:
            self._check_vision()
        has_adapters = any(role == "adapter" for role, _ in self.inputs)
        dtype = dtype or (self.text.tensors[self.overlay.embedding].dtype if has_adapters else None)
        text_config = {**self.text_config, "vocab_size": self.overlay.num_rows, "tie_word_embeddings": self.overlay.is_tied}
        if dtype is not None:
            text_config |= {key: str(dtype).removeprefix("torch.") for key in ("torch_dtype", "dtype") if key in text_config}
        products = {}
        for name, tensor in self.overlay.tensors.items():
            is_cast = dtype is not None and tensor.dtype.is_floating_point
            products[name] = Product(tensor, dtype if is_cast else tensor.dtype, self.overlay.changes.get(name, ()))
        model = WholeModel(
            text_config,
            self.vision_config,
            next(iter(products.values())).dtype,
            self.tokenizer_folder,
            self.preprocessor_folder,
        )
        unused = {self.text.folder: self.overlay.unused}
        if self.vision is not None:
            unused.setdefault(self.vision.folder, []).extend(self.vision.unused)
        return MergePlan(self.family, products, model, self.text, self.inputs, unused)

    def _check_vision(self) -> None:
        expected = vision_shapes(self.family, self.vision_config, self.text_config)
        present = {name: tensor for name, tensor in self.overlay.tensors.items() if not name.startswith(self.family.text)}
        missing = [name for name in expected if name not in present]
        leftover = [name for name in present if name not in expected]
        wrong = [name for name in expected if name in present and present[name].shape != tuple(expected[name].shape)]
        if missing or leftover or wrong:
            raise ValueError(
                f"The vision model is not whole: {len(missing)} tensors missing {missing[:3]}, {len(leftover)} unknown {leftover[:3]}, "
                f"{len(wrong)} of another shape {wrong[:3]}. What stands between encoder and language "
                f"model comes with {self.family.label}'s adapter (--lora_model) or a whole model; the vision encoder must be the one "
                "it was trained on."
            )


def _recorded_config(adapter: Adapter) -> dict[str, Any]:
    """The configuration of the whole model that an adapter was saved with; empty when there is none."""
    if not (adapter.folder / "config.json").is_file():
        return {}
    return dict(read_config(adapter.folder))
