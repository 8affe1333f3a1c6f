"""The files of a composite model: read from any layout, written in any layout.

* `webui`: the language model at the root, the vision model in `vision/`; what the web UI's loaders open.
* `transformers`: one folder for the Auto classes.
* `original`: what a family's original code opens; the family says how (`Family.read_original`, `Family.write_original`).
"""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig, GenerationConfig, PreTrainedConfig

from ..checkpoints.formats import refuse_foreign
from ..fixed_length import CONVERT_FIRST, FixedLengthPipeline, PromptSide, Unloaded
from ..json_files import read_json
from ..weights import tensor_headers, weight_files
from .modeling import CompositeForConditionalGeneration, CompositeVisionModel, compose, load_language_model
from .parts import Parts
from .processing import CompositeProcessor
from .tensors import MAX_SHARD_BYTES, check_finite, check_placed, new_folder, stored_tensors, write_safetensors

LAYOUTS = ("webui", "transformers", "original")
VISION_PREFIX = "model.vision_model."


@dataclass(frozen=True)
class Output:
    """Where and how a model is written.

    Attributes:
        folder: a new one.
        dtype: of the weights; as stored when None.
        max_shard_bytes: of a weight file.
    """

    folder: Path
    dtype: torch.dtype | None
    max_shard_bytes: int

    def checked(self, tensors: Iterable[tuple[str, torch.Tensor]], source: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors in the dtype that is asked for.

        Raises:
            ValueError: a value is not finite, or does not fit that dtype.
        """
        for name, tensor in tensors:
            check_finite({name: tensor}, source)
            if self.dtype is not None and tensor.is_floating_point() and tensor.dtype != self.dtype:
                tensor = tensor.to(self.dtype)
                check_finite({name: tensor}, f"{source} as {self.dtype}")
            yield name, tensor


CARD = """# {name}

A {family} model in the layout `{layout}`, made by multimodal-vcla of {source}{adapter}.

Open it: `python -m demo page --model FOLDER`. The weights carry the terms of what they were made of.
"""


@dataclass(frozen=True)
class Family:
    """What a family adds to this package.

    Attributes:
        name: its id.
        model_class: the whole model.
        vision_class: its vision model.
        processor_class: its processor.
        read_original: (path, text_model=, vision_model=, with_language=) to `Parts`.
        write_original: (parts, output) writes the original's files.
        apply_adapter: (parts, path) to parts with what a `lora_model` brings.
    """

    name: str
    model_class: type[CompositeForConditionalGeneration]
    vision_class: type[CompositeVisionModel]
    processor_class: type[CompositeProcessor]
    read_original: Callable[..., Parts]
    write_original: Callable[..., None]
    apply_adapter: Callable[[Parts, Path], Parts]

    @property
    def config_class(self) -> type[PreTrainedConfig]:
        return self.model_class.config_class

    def layout(self, folder: Path) -> str:
        """Which layout a folder has; what is no other is taken for the original's."""
        model_type = self.config_class.model_type
        if read_json(folder / "vision" / "config.json").get("model_type") == model_type:
            return "webui"
        return "transformers" if read_json(folder / "config.json").get("model_type") == model_type else "original"

    def missing_parts(self, path: str | os.PathLike) -> list[str]:
        """What keeps a folder from being opened, a sentence each; no value is read."""
        try:
            parts = self.read(path)
            self.processor_of(parts)
        except (OSError, ValueError) as error:
            return [str(error)]
        return []

    def load_config(self, folder: str | os.PathLike) -> PreTrainedConfig:
        """The configuration of a folder that this project wrote."""
        folder = Path(folder)
        file = folder / "vision" / "config.json" if self.layout(folder) == "webui" else folder / "config.json"
        return self.config_class.from_dict(read_json(file))

    def read(
        self,
        path: str | os.PathLike,
        *,
        text_model: str | os.PathLike | None = None,
        vision_model: str | os.PathLike | None = None,
        lora_model: str | os.PathLike | None = None,
        with_language: bool = True,
    ) -> Parts:
        """A model in any layout.

        Raises:
            FileNotFoundError, ValueError: files are missing, broken, or do not fit each other; one line that says which.
        """
        path = Path(path).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"{str(path)!r} is neither a file nor a folder.")
        layout = self.layout(path) if path.is_dir() else "original"
        if layout == "original":
            parts = self.read_original(path, text_model=text_model, vision_model=vision_model, with_language=with_language)
        else:
            parts = self._read_own(path, layout, with_language)
        if lora_model is not None:
            parts = self.apply_adapter(parts, Path(lora_model).expanduser())
        self._check(parts)
        return parts

    def load_vision(self, path: str | os.PathLike, dtype: torch.dtype | str | None = None, **where: Any):
        """(vision model, processor); the language model stays on disk."""
        parts = self.read(path, with_language=False, **where)
        return self._vision(parts, dtype), self.processor_of(parts)

    def load_prompt_side(self, path: str | os.PathLike, pipeline_class: Callable[..., FixedLengthPipeline]) -> PromptSide:
        """See `pipelines.registry.load_prompt_side`."""
        if self.layout(Path(path)) == "original":
            raise ValueError(CONVERT_FIRST.format(path=os.fspath(path), family=self.name))
        parts = self.read(path)
        processor = self.processor_of(parts)
        embeddings = next(tensor for name, tensor in parts.language.items() if name.endswith("embed_tokens.weight"))
        pipeline = pipeline_class(Unloaded(parts.config), processor, Path(path).resolve().name)
        return PromptSide(parts.config, processor, pipeline, embeddings.clone)

    def load_model(
        self,
        path: str | os.PathLike,
        *,
        text_model: str | os.PathLike | None = None,
        vision_model: str | os.PathLike | None = None,
        lora_model: str | os.PathLike | None = None,
        dtype: torch.dtype | str | None = "auto",
        device_map: Any = None,
        load_in_8bit: bool = False,
        load_in_4bit: bool = False,
        quantization_config: Any = None,
        prompt_style: str | None = None,
        **kwargs: Any,
    ) -> tuple[CompositeForConditionalGeneration, CompositeProcessor]:
        """A whole model from any layout, in evaluation mode, with its processor.

        Args:
            path: a folder, or the file a family is published as.
            text_model: the language model's folder, where the published files do not hold it.
            vision_model: folder of the vision model's files, where they lie elsewhere.
            lora_model: an adapter, or a checkpoint that replaces a part; merged while loading.
            dtype: of the weights; as stored when "auto". The vision model is never quantised.
            device_map: as in transformers, for the language model; the vision model goes where its embeddings are.
            load_in_8bit: quantise the language model through bitsandbytes.
            load_in_4bit: likewise, with 4 bits.
            prompt_style: which of the original's prompts is meant; see the configuration.
            kwargs: for the language model's `from_pretrained`.

        Raises:
            FileNotFoundError, ValueError: see `read`.
        """
        parts = self.read(path, text_model=text_model, vision_model=vision_model, lora_model=lora_model)
        if prompt_style is not None:
            parts.config.prompt_style = prompt_style
        processor = self.processor_of(parts)
        quantization = quantization_config or _quantization(load_in_8bit, load_in_4bit)
        text_kwargs = {"device_map": device_map, "quantization_config": quantization, **kwargs}
        text_kwargs = {key: value for key, value in text_kwargs.items() if value is not None}
        stored = next(tensor.dtype for tensor in parts.language.values() if tensor.is_floating_point())
        text_kwargs["dtype"] = stored if dtype in (None, "auto") else getattr(torch, dtype) if isinstance(dtype, str) else dtype
        language_model = load_language_model(parts.config.text_config, dict(parts.language_tensors()), **text_kwargs)
        vision = self._vision(parts, text_kwargs["dtype"])
        settings = parts.tokenizer_folder / "generation_config.json"
        if settings.is_file():
            language_model.generation_config = GenerationConfig.from_pretrained(parts.tokenizer_folder)
        model = self.compose(vision, language_model, parts.source)
        if load_in_4bit:
            _check_4bit_widths(model)
        return model, processor

    def compose(self, vision: Any, language_model: Any, source: str) -> Any:
        """A loaded vision model and a loaded language model as one model."""
        return compose(self.model_class, vision, language_model, source)

    def load_processor(self, path: str | os.PathLike) -> CompositeProcessor:
        """See `pipelines.registry.load_processor`."""
        return self.processor_of(self.read(path, with_language=False))

    def processor_of(self, parts: Parts) -> CompositeProcessor:
        """The processor that belongs to the parts."""
        if parts.processor is not None:
            return parts.processor
        return self.processor_class.of(parts.tokenizer_folder, parts.config)

    def write(
        self,
        parts: Parts,
        target: str | os.PathLike,
        layout: str = "webui",
        dtype: torch.dtype | None = None,
        max_shard_bytes: int = MAX_SHARD_BYTES,
        force: bool = False,
    ) -> None:
        """Write a model in a layout, tensor by tensor; the folder appears whole or not at all.

        Args:
            parts: from `read`, with the language model.
            target: a folder that does not exist yet, or holds a model to be replaced (`force`).
            layout: one of `LAYOUTS`.
            dtype: of the written weights; as stored when absent.
            max_shard_bytes: of a weight file.

        Raises:
            FileExistsError: the target holds something.
            ValueError: a value is not finite, or the layout is unknown.
        """
        if layout not in LAYOUTS:
            raise ValueError(f"Unknown layout {layout!r}. Available: {', '.join(map(repr, LAYOUTS))}.")
        with new_folder(Path(target).expanduser(), force) as folder:
            out = Output(folder, dtype, max_shard_bytes)
            if layout == "original":
                self.write_original(parts, out)
            else:
                self._write_own(parts, out, layout)
            adapter = f" and {parts.adapter} (LoRA, merged)" if parts.adapter else ""
            card = CARD.format(name=Path(target).name, family=self.name, source=parts.source, adapter=adapter, layout=layout)
            (folder / "README.md").write_text(card, encoding="utf-8")
            self.processor_of(self.read(folder))  # before it gets its name: every tensor in its place, whatever wrote it

    def convert(
        self,
        path: str | os.PathLike,
        output_dir: str | os.PathLike,
        layout: str,
        *,
        text_model: str | os.PathLike | None = None,
        vision_model: str | os.PathLike | None = None,
        lora_model: str | os.PathLike | None = None,
        **options: Any,
    ) -> None:
        """`read`, then `write` with `options`; what `python -m training merge` and `convert` call."""
        parts = self.read(path, text_model=text_model, vision_model=vision_model, lora_model=lora_model)
        self.write(parts, output_dir, layout, **options)

    def _write_own(self, parts: Parts, out: Output, layout: str) -> None:
        folder, config, text = out.folder, parts.config, parts.config.text_config
        config.architectures = [self.model_class.__name__]
        dtypes = {tensor.dtype for tensor in parts.language.values() if tensor.is_floating_point()}
        text.dtype = config.dtype = out.dtype or (dtypes.pop() if len(dtypes) == 1 else None)
        processor = self.processor_of(parts)
        if layout == "webui":
            text.architectures = ["LlamaForCausalLM"]
            text.save_pretrained(folder)
            write_safetensors(out.checked(parts.language_tensors(), parts.source), folder, out.max_shard_bytes)
            vision = folder / "vision"
            vision.mkdir()
            config.save_pretrained(vision)
            write_safetensors(out.checked(parts.vision.items(), parts.source), vision, out.max_shard_bytes)
            processor.image_processor.save_pretrained(vision)
            processor.tokenizer.chat_template = processor.chat_template
            processor.tokenizer.save_pretrained(folder)
        else:
            config.save_pretrained(folder)

            def tensors():
                for name, tensor in parts.vision.items():
                    yield f"{VISION_PREFIX}{name}", tensor
                for name, tensor in parts.language_tensors():
                    yield _composite_name(name), tensor

            write_safetensors(out.checked(tensors(), parts.source), folder, out.max_shard_bytes)
            processor.save_pretrained(folder)
            processor.image_processor.save_pretrained(folder)
        self._copy_files(parts, folder)

    def _copy_files(self, parts: Parts, folder: Path) -> None:
        for name in ("generation_config.json", "tokenizer.model"):  # the latter is what the original's code reads
            if (parts.tokenizer_folder / name).is_file():
                shutil.copyfile(parts.tokenizer_folder / name, folder / name)
        if parts.generation_config is not None:
            (folder / "generation_config.json").write_text(parts.generation_config.to_json_string(), encoding="utf-8")

    def split(self, tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(vision model, language model) of what stands under the names of a whole model's tensors, each under its own names."""
        vision = {name.removeprefix(VISION_PREFIX): t for name, t in tensors.items() if name.startswith(VISION_PREFIX)}
        language = {_language_name(name): t for name, t in tensors.items() if not name.startswith(VISION_PREFIX)}
        return vision, language

    def save_model(self, model: Any, processor: CompositeProcessor, folder: str | os.PathLike) -> None:
        """Write a whole model that is loaded; see `pipelines.registry.save_model`."""
        vision, language = self.split(model.state_dict())
        if model.config.text_config.tie_word_embeddings:
            language.pop("lm_head.weight", None)
        config, source = copy.deepcopy(model.config), f"the model in memory ({self.name})"
        parts = Parts(
            config, vision, language, Path(folder), source, processor=processor, generation_config=model.generation_config
        )
        self.write(parts, folder, force=True)

    def _read_own(self, folder: Path, layout: str, with_language: bool) -> Parts:
        config = self.load_config(folder)
        if layout == "webui":
            vision = stored_tensors(folder / "vision")
            language = stored_tensors(folder) if with_language else None
            if with_language:
                config.text_config = type(config.text_config).from_dict(read_json(folder / "config.json"))
        else:
            vision, language = self.split(stored_tensors(folder))
            language = language if with_language else None
        return Parts(config, vision, language, folder, repr(str(folder)))

    def _check(self, parts: Parts) -> None:
        with torch.device("meta"):
            expected = self.vision_class(parts.config).state_dict()
        check_placed(parts.vision, expected, f"{parts.source}: the vision model")
        if parts.language is not None:
            from transformers import LlamaForCausalLM

            with torch.device("meta"):
                expected = LlamaForCausalLM(parts.config.text_config).state_dict()
            if parts.config.text_config.tie_word_embeddings and "lm_head.weight" not in parts.language:
                expected.pop("lm_head.weight")
            check_placed(parts.language, expected, f"{parts.source}: the language model")

    def _vision(self, parts: Parts, dtype: torch.dtype | str | None) -> CompositeVisionModel:
        stored = next(tensor.dtype for tensor in parts.vision.values() if tensor.is_floating_point())
        dtype = stored if dtype in (None, "auto") else getattr(torch, dtype) if isinstance(dtype, str) else dtype
        check_finite(parts.vision, parts.source)
        state = {name: tensor.clone() for name, tensor in parts.vision.items()}
        return self.vision_class.from_pretrained(None, config=parts.config, state_dict=state, dtype=dtype).eval()


def read_text_model(path: str | os.PathLike) -> tuple[Path, dict[str, Any]]:
    """Folder and configuration of a language model that stands by itself.

    Raises:
        FileNotFoundError, ValueError: it is no folder of a LLaMA with its weights.
    """
    folder = Path(path).expanduser()
    refuse_foreign(folder, "merge")
    config = read_json(folder / "config.json")
    if not folder.is_dir() or not config:
        raise FileNotFoundError(f"{str(folder)!r} is no folder of a language model: there is no config.json in it.")
    if config.get("model_type") != "llama":
        raise ValueError(
            f"{str(folder)!r} is a {config.get('model_type')!r}, not a LLaMA. Give the language model (Vicuna, LLaMA)."
        )
    if not weight_files(folder):
        raise FileNotFoundError(f"{str(folder)!r} holds no weights of a language model. Copy its weight files into it.")
    tensor_headers(folder)
    return folder, config


def _composite_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.language_model.{name.removeprefix('model.')}"


def _language_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name.removeprefix('model.language_model.')}"


def _quantization(load_in_8bit: bool, load_in_4bit: bool) -> BitsAndBytesConfig | None:
    if load_in_8bit and load_in_4bit:
        raise ValueError("load_in_8bit and load_in_4bit exclude each other; give one of them.")
    if load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    if load_in_4bit:
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float16, bnb_4bit_quant_type="nf4")
    return None


def _check_4bit_widths(model: CompositeForConditionalGeneration) -> None:
    """On a CPU bitsandbytes packs 4-bit weights in blocks, and says so only when the first token is computed."""
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.get_input_embeddings().weight.device))
    except AssertionError as error:
        raise ValueError(
            f"This language model cannot be computed in 4 bits on this processor: its layer widths are no multiples of bitsandbytes' "
            f"block size ({error}). Load it in 8 bits (load_in_8bit)."
        ) from error


def write_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
