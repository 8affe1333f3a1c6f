"""What a merged model consists of, worked out from headers before a single weight is read.

Each adapter is laid over the parts in its turn. Every tensor of it must find its place, every size must fit, and the base must
be the recorded one: an adapter that is half merged answers, and answers wrongly.
"""

from pathlib import Path
from typing import Any

import torch

from pipelines.checkpoints.adapters import Adapter, check_targets
from pipelines.checkpoints.merging import Merging, Part, WholeModel
from pipelines.checkpoints.offsets import StoredTensor
from pipelines.checkpoints.structure import is_same, language_model, read_config
from pipelines.registry import merging
from pipelines.tokenization import TOKENIZER_FILES, has_tokenizer, load_tokenizer

from .checks import (
    TEXT_CONFIG_FIELDS,
    VISION_CONFIG_FIELDS,
    check_base_name,
    check_recorded,
    check_tokenizer_goes_on,
)
from .lora import LowRank
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
        self.tensors: dict[str, StoredTensor] = {**text.tensors, **({} if vision is None else vision.tensors)}
        self.changes: dict[str, tuple[LowRank, ...]] = {}
        stored = {name.removeprefix(family.text): tensor for name, tensor in text.tensors.items()}
        structure = language_model(text.config, stored, text.folder)
        prefix = family.text
        self.embedding, self.head = prefix + structure.embedding, prefix + structure.head
        self.conv1d = {prefix + name for name in structure.conv1d}
        self.adaptable = {prefix + name for name in structure.adaptable}
        self.names = {prefix + found: prefix + name for name, found in structure.names.items()}
        self.unused = [prefix + name for name in structure.unused]
        for name in self.unused:
            self.tensors.pop(name)
        # transformers opens a folder untied whose file has a head of its own, whatever its config.json says.
        head = self.tensors.get(self.head)
        self.is_tied = structure.is_tied and (head is None or is_same(head, self.tensors[self.embedding]))
        if self.is_tied:
            self.tensors.pop(self.head, None)
        self.tokenizer_folder = text.files_folder if has_tokenizer(text.files_folder) else None
        self.tokenizer = None if self.tokenizer_folder is None else load_tokenizer(self.tokenizer_folder)
        self.preprocessor_folder = None if vision is None else vision.files_folder
        self.inputs = [("language model", text.folder)]
        if vision is not None and vision.folder != text.folder:
            self.inputs.append(("vision encoder", vision.folder))

    @property
    def num_rows(self) -> int:
        return self.tensors[self.embedding].shape[0]

    def apply(self, adapter: Adapter) -> None:
        rows_before = self.num_rows
        is_first = not any(role == "adapter" for role, _ in self.inputs)
        if is_first and (not adapter.is_whole or self.vision is None or self.vision.folder == self.text.folder):
            check_base_name(adapter, self.text.folder, self.family)
        if adapter.is_whole and self.vision is None:
            raise ValueError(
                f"The adapter {str(adapter.folder)!r} was made for a whole {self.family.label} model: give the vision encoder too "
                "(--vision_model)."
            )
        self._take_file_names(adapter)
        self._untie(adapter)
        self._replace(adapter)
        self._add_lora(adapter)
        self._take_tokenizer(adapter)
        if adapter.is_whole:
            self._take_vision_config(adapter, rows_before)
        self.inputs.append(("adapter", adapter.folder))

    def _take_file_names(self, adapter: Adapter) -> None:
        """Adapters name modules, which transformers may call differently from the weights in files (GPT-NeoX)."""
        for found, name in self.names.items():
            if found in adapter.lora:
                adapter.lora[name] = adapter.lora.pop(found)
            if f"{found}.weight" in adapter.whole:
                adapter.whole[f"{name}.weight"] = adapter.whole.pop(f"{found}.weight")

    def _untie(self, adapter: Adapter) -> None:
        """An adapter that changes one of two tied matrices was trained with the other as it was (PEFT 2777)."""
        modules = {self.embedding.removesuffix(".weight"), self.head.removesuffix(".weight")}
        touches = {name for name in adapter.whole if name in (self.embedding, self.head)}
        touches |= {f"{module}.weight" for module in adapter.lora if module in modules}
        if not self.is_tied or not touches:
            return
        if adapter.ties and not any(module in adapter.lora for module in modules):
            adapter.whole.pop(self.head, None)
            return
        self.tensors[self.head] = self.tensors[self.embedding]
        self.is_tied = False

    def _replace(self, adapter: Adapter) -> None:
        places = self.tensors if self.vision_config is None else {**self.tensors, **self._vision_places(adapter)}
        unmatched = [name for name in adapter.whole if name not in places]
        unmatched += [module for module in adapter.lora if f"{module}.weight" not in places]
        if unmatched:
            raise ValueError(
                f"{len(unmatched)} of {len(adapter.whole) + len(adapter.lora)} tensors and modules of the adapter "
                f"{str(adapter.folder)!r} have no place in the model, the first: {unmatched[:3]}. Was it made for another base?"
            )
        vocabulary = (self.embedding, self.head)
        for name, tensor in adapter.whole.items():
            expected = places[name].shape
            grows = name in vocabulary and tensor.shape[1:] == expected[1:]
            if tuple(tensor.shape) != tuple(expected) and not grows:
                raise ValueError(
                    f"The adapter {str(adapter.folder)!r} brings {name} of shape {tuple(tensor.shape)}, but the model's is "
                    f"{tuple(expected)}. Was it made for another base?"
                )
            if grows and tensor.shape[0] < expected[0]:
                raise ValueError(
                    f"The adapter {str(adapter.folder)!r} brings {name} with {tensor.shape[0]} rows, but the model has "
                    f"{expected[0]} already: a vocabulary does not shrink. Are the adapters in the order they were trained in?"
                )
            self.tensors[name] = tensor
            self.changes.pop(name, None)
        modules = (
            self.adaptable
            if self.vision_config is None
            else self.adaptable | vision_modules(self.family, self.vision_config, self.text_config)
        )
        check_targets(adapter, modules if adapter.is_whole else self.adaptable, self.family.namings)
        if not self.is_tied and self.tensors[self.head].shape[0] != self.num_rows:
            raise ValueError(
                f"The adapter {str(adapter.folder)!r} leaves {self.num_rows} rows in {self.embedding} but "
                f"{self.tensors[self.head].shape[0]} in {self.head}: it was saved without one of them, so the new tokens' rows "
                "are lost. Save both (modules_to_save), or train with ensure_weight_tying."
            )

    def _vision_places(self, adapter: Adapter) -> dict[str, Any]:
        recorded = vision_fields(self.family, _recorded_config(adapter)) if adapter.is_whole else {}
        vision = {**self.vision_config, **recorded, "vision_config": self.vision_config["vision_config"]}
        return vision_shapes(self.family, vision, self.text_config)

    def _add_lora(self, adapter: Adapter) -> None:
        for module, lora in adapter.lora.items():
            name = f"{module}.weight"
            is_embedding = "lora_embedding_A" in lora.parts
            kind = "lora_embedding_" if is_embedding else "lora_"
            a, b = lora.parts[f"{kind}A"], lora.parts[f"{kind}B"]
            change = LowRank(a, b, lora.scale, is_embedding or module in self.conv1d, lora.parts.get("lora_magnitude_vector"))
            shape = self.tensors[name].shape
            rows_and_columns = (shape[0], torch.Size(shape[1:]).numel())
            if change.shape != rows_and_columns:
                raise ValueError(
                    f"The adapter {str(adapter.folder)!r}: its LoRA of {module} makes {change.shape}, but the weight is "
                    f"{tuple(shape)}. Was it made for another base?"
                )
            if change.magnitude is not None and change.is_transposed:
                raise ValueError(
                    f"The adapter {str(adapter.folder)!r} has DoRA on {module}, whose weight is stored transposed; that cannot "
                    "be merged row by row. Merge it with PEFT."
                )
            if not self.tensors[name].dtype.is_floating_point:
                raise ValueError(f"{name} is {self.tensors[name].dtype}: a LoRA cannot be merged into quantised weights.")
            self.changes[name] = (*self.changes.get(name, ()), change)

    def _take_tokenizer(self, adapter: Adapter) -> None:
        if not has_tokenizer(adapter.folder):
            return
        tokenizer = load_tokenizer(adapter.folder)
        if len(tokenizer) > self.num_rows:
            raise ValueError(
                f"The tokenizer of {str(adapter.folder)!r} has {len(tokenizer)} tokens but the model only {self.num_rows} "
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
        if recorded_rows not in (None, rows_before, self.num_rows):
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
        dtype = dtype or (self.text.tensors[self.embedding].dtype if has_adapters else None)
        text_config = {**self.text_config, "vocab_size": self.num_rows, "tie_word_embeddings": self.is_tied}
        if dtype is not None:
            text_config |= {key: str(dtype).removeprefix("torch.") for key in ("torch_dtype", "dtype") if key in text_config}
        products = {}
        for name, tensor in self.tensors.items():
            is_cast = dtype is not None and tensor.dtype.is_floating_point
            products[name] = Product(tensor, dtype if is_cast else tensor.dtype, self.changes.get(name, ()))
        model = WholeModel(
            text_config,
            self.vision_config,
            next(iter(products.values())).dtype,
            self.tokenizer_folder,
            self.preprocessor_folder,
        )
        return MergePlan(self.family, products, model, self.text, self.inputs)

    def _check_vision(self) -> None:
        expected = vision_shapes(self.family, self.vision_config, self.text_config)
        present = {name: tensor for name, tensor in self.tensors.items() if not name.startswith(self.family.text)}
        missing = [name for name in expected if name not in present]
        leftover = [name for name in present if name not in expected]
        wrong = [name for name in expected if name in present and present[name].shape != tuple(expected[name].shape)]
        if missing or leftover or wrong:
            raise ValueError(
                f"The vision model is not whole: {len(missing)} tensors missing {missing[:3]}, {len(leftover)} unknown {leftover[:3]}, "
                f"{len(wrong)} of another shape {wrong[:3]}. Resampler and projector come with VisualCLA's adapter (--lora_model) "
                "or a whole model; the vision encoder must be the one they were trained on."
            )


def _recorded_config(adapter: Adapter) -> dict[str, Any]:
    """The configuration of the whole model that an adapter was saved with; empty when there is none."""
    if not (adapter.folder / "config.json").is_file():
        return {}
    return dict(read_config(adapter.folder))
