"""OpenFlamingo and Multimodal-GPT from files: the published ones as they lie, and the folders that this project writes.

| layout         | what it is                                                                                          |
| -------------- | --------------------------------------------------------------------------------------------------- |
| `webui`        | the language model at the root, everything else in `vision/`: what the web UI's loaders open        |
| `transformers` | one composite checkpoint: what transformers' Auto classes open                                      |
| `original`     | `checkpoint.pt`; LLaMA and CLIP lie beside it in `llama/` and `clip/`, or are given                 |

Multimodal-GPT's LoRA, `mmgpt-lora-v0-release.pt` or what its trainer writes, goes on top of any of them and is merged into
the weights on the way. `saving.py` writes the layouts, `layouts.py` knows the names.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ..checkpoints.adapters import read_adapter
from ..checkpoints.low_rank import LowRank, changed
from ..checkpoints.offsets import StoredTensor
from ..checkpoints.overlay import Overlay
from ..checkpoints.stored_tensors import read_header
from ..checkpoints.structure import language_model
from ..checkpoints.torch_pickles import read_pickle
from ..composite.checkpoint import read_text_model
from ..composite.tensors import check_finite, check_placed
from ..embedder import embedding_device
from ..hub import resolve_folder
from ..json_files import read_json
from ..tokenization import has_tokenizer
from ..weights import load_tensors
from .configuration_open_flamingo import OpenFlamingoConfig
from .layouts import EMBEDDINGS, PARTS, from_checkpoint, from_clip, from_lora, from_open_clip
from .modeling_open_flamingo import OpenFlamingoForConditionalGeneration, OpenFlamingoVisionModel
from .pipeline import OpenFlamingoPipeline
from .processing_open_flamingo import (
    IMAGE_TOKEN,
    NUM_NEW_TOKENS,
    OpenFlamingoProcessor,
    load_image_processor,
    load_tokenizer,
)

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


def load_model(
    name_or_path: str | os.PathLike,
    *,
    text_model: str | os.PathLike | None = None,
    vision_model: str | os.PathLike | None = None,
    lora_model: str | os.PathLike | None = None,
    dtype: torch.dtype | str | None = "auto",
    device_map: Any = None,
    load_in_8bit: bool = False,
    load_in_4bit: bool = False,
    quantization_config: Any = None,
    **kwargs: Any,
) -> tuple[OpenFlamingoForConditionalGeneration, OpenFlamingoProcessor]:
    """A whole model from any layout, in evaluation mode, and its processor.

    Args:
        name_or_path: a folder, or `checkpoint.pt` itself.
        text_model: LLaMA's folder (layout `original`; `llama/` beside `checkpoint.pt` when absent).
        vision_model: CLIP's folder, or a file of open_clip (layout `original`; `clip/` when absent).
        lora_model: Multimodal-GPT's LoRA, merged before anything is quantised.
        dtype: of all weights; "auto" is the language model's as stored.
        device_map: as in transformers, for the language model; the rest goes where its embeddings are.
        load_in_8bit: quantise the language model through bitsandbytes; the rest stays as it is.
        load_in_4bit: as `load_in_8bit`, with 4 bits.
        kwargs: for the language model's `from_pretrained`, such as `attn_implementation`.

    Raises:
        FileNotFoundError, ValueError: files are missing, or do not fit each other; the message says which and what to do.
    """
    if load_in_8bit and load_in_4bit:
        raise ValueError("load_in_8bit and load_in_4bit exclude each other; give one of them.")
    if load_in_8bit:
        quantization_config = BitsAndBytesConfig(load_in_8bit=True)
    elif load_in_4bit:
        quantization_config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_compute_dtype=torch.float16, bnb_4bit_quant_type="nf4"
        )
    checkpoint = read_checkpoint(name_or_path, text_model, vision_model, lora_model)
    if dtype in (None, "auto"):
        dtype = checkpoint.tensors["language_model.lm_head.weight"].dtype
    elif isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    tensors = dict(checkpoint.merged(dtype))
    config, language = checkpoint.config, language_tensors(tensors)
    language_model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config.text_config)].from_pretrained(
        None,
        config=config.text_config,
        state_dict=language,
        dtype=dtype,
        device_map=device_map,
        quantization_config=quantization_config,
        **kwargs,
    )
    language_model.generation_config = checkpoint.generation_config
    vision = _vision_model(config, tensors, dtype).to(embedding_device(language_model))
    model = OpenFlamingoForConditionalGeneration(config, language_model=language_model, vision=vision)
    model.generation_config = checkpoint.generation_config
    model.processor = OpenFlamingoProcessor(checkpoint.image_processor, checkpoint.tokenizer, checkpoint.chat_template)
    return model.eval(), model.processor


def load_pipeline(
    folder: str | os.PathLike, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None
) -> OpenFlamingoPipeline:
    """See `pipelines.registry.load_pipeline`; of a whole model the language model is left on disk."""
    folder = Path(folder)
    place = folder / "vision" if (folder / "vision" / "config.json").is_file() else folder
    config = read_config(place)
    tensors = load_tensors(place)
    if dtype in (None, "auto"):
        dtype = tensors["perceiver.latents"].dtype
    vision = _vision_model(config, tensors, dtype)
    vision = vision if device is None else vision.to(device)
    return OpenFlamingoPipeline(vision, load_image_processor(folder), folder.resolve().name)


def pipeline_of(model: OpenFlamingoForConditionalGeneration, processor: OpenFlamingoProcessor) -> OpenFlamingoPipeline:
    """A loaded whole model as a `VisionPipeline`."""
    return OpenFlamingoPipeline(model, processor.image_processor, model.config.model_type)


def read_checkpoint(
    name_or_path: str | os.PathLike,
    text_model: str | os.PathLike | None = None,
    vision_model: str | os.PathLike | None = None,
    lora_model: str | os.PathLike | None = None,
) -> Checkpoint:
    """All that a model is made of, checked: every tensor has its place, none is missing. See `load_model`."""
    path = Path(name_or_path).expanduser()
    original = path / "checkpoint.pt" if path.is_dir() else path
    if original.is_file():
        checkpoint = _read_original(original, text_model, vision_model)
    elif path.is_dir():
        if text_model is not None or vision_model is not None:
            raise ValueError(
                f"{str(path)!r} is a whole model: text_model and vision_model are for checkpoint.pt. Leave them out."
            )
        checkpoint = _read_written(path)
    else:
        raise FileNotFoundError(
            f"{str(path)!r} is neither a folder nor a file. Give a model folder or OpenFlamingo's checkpoint.pt."
        )
    if lora_model is not None:
        add_lora(checkpoint, Path(lora_model).expanduser())
    check_tensors(checkpoint.config, checkpoint.tensors, path)
    return checkpoint


def language_tensors(tensors: Tensors) -> Tensors:
    """Those of the language model, under the names of its own files."""
    return {name.removeprefix(LANGUAGE): tensor for name, tensor in tensors.items() if name.startswith(LANGUAGE)}


def vision_tensors(tensors: Tensors) -> Tensors:
    """All others: what lies in `vision/`."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(PARTS["language"])}


def read_config(folder: Path) -> OpenFlamingoConfig:
    """The configuration of a folder that this project has written.

    Raises:
        ValueError: it is another model's, or there is none.
    """
    values = read_json(folder / "config.json")
    if values.get("model_type") != OpenFlamingoConfig.model_type:
        raise ValueError(
            f"{str(folder)!r} holds no OpenFlamingo model: its config.json has the model_type {values.get('model_type')!r}. Give "
            "checkpoint.pt with text_model and vision_model, or a folder that was made of it."
        )
    return OpenFlamingoConfig.from_dict(values)


def detect_layout(folder: Path) -> str:
    """Which layout a folder has; see the table above."""
    if (folder / "vision" / "config.json").is_file():
        return "webui"
    return "original" if (folder / "checkpoint.pt").is_file() else "transformers"


def missing_parts(path: str | os.PathLike) -> list[str]:
    """What keeps a folder or file from being opened, in one line; nothing where it opens."""
    try:
        read_checkpoint(path)
    except (OSError, ValueError) as error:
        return [str(error)]
    return []


def check_tensors(config: OpenFlamingoConfig, tensors: Tensors, path: Path) -> None:
    """
    Raises:
        ValueError: a tensor is missing, has no place, or has another shape.
    """
    with torch.device("meta"):
        expected = OpenFlamingoForConditionalGeneration(copy.deepcopy(config)).state_dict()
    check_placed(tensors, expected, f"{str(path)!r} with its language model and vision encoder")


def _vision_model(config: OpenFlamingoConfig, tensors: Tensors, dtype: torch.dtype | str) -> OpenFlamingoVisionModel:
    return OpenFlamingoVisionModel.from_pretrained(
        None, config=copy.deepcopy(config), state_dict=vision_tensors(tensors), dtype=dtype
    ).eval()


def _read_written(folder: Path) -> Checkpoint:
    """Layouts `webui` and `transformers`."""
    if (folder / "vision" / "config.json").is_file():
        config = read_config(folder / "vision")
        config.text_config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tensors = load_tensors(folder / "vision")
        tensors |= {f"language_model.{name}": tensor for name, tensor in load_tensors(folder).items()}
    else:
        config, tensors = read_config(folder), load_tensors(folder)
    template, tokenizer = folder / "chat_template.jinja", load_tokenizer(folder)
    if (found := tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)) != config.image_token_id:
        raise ValueError(
            f"{str(folder)!r}: {IMAGE_TOKEN!r} is {found} in its tokenizer, but by its configuration {config.image_token_id!r}. Copy the "
            "folder again."
        )
    return Checkpoint(
        config,
        tensors,
        tokenizer,
        load_image_processor(folder),
        GenerationConfig.from_pretrained(folder),
        template.read_text(encoding="utf-8") if template.is_file() else None,
        source=folder,
    )


def _read_original(file: Path, text_model: str | os.PathLike | None, vision_model: str | os.PathLike | None) -> Checkpoint:
    """`checkpoint.pt`, LLaMA and CLIP."""
    text_folder = _beside(file, text_model, "llama", "text_model", "the LLaMA")
    vision_path = _beside(file, vision_model, "clip", "vision_model", "the CLIP ViT-L/14")
    tensors = _read_checkpoint_pt(file)
    read_text_model(text_folder)
    text_config = AutoConfig.from_pretrained(text_folder, trust_remote_code=False)
    language = load_tensors(text_folder)
    _extend_vocabulary(tensors, language, text_config, file, text_folder)
    tensors |= {
        f"language_model.{name}": tensor for name, tensor in language.items() if not name.endswith("rotary_emb.inv_freq")
    }
    vision_config, vision = read_clip(vision_path)
    tokenizer = load_tokenizer(text_folder)
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if len(tokenizer) > text_config.vocab_size:
        raise ValueError(
            f"The tokenizer of {str(text_folder)!r} has {len(tokenizer)} tokens with OpenFlamingo's, but {file.name} has "
            f"{text_config.vocab_size} embeddings: it was made with another tokenizer. Give the LLaMA it was trained on."
        )
    config = _config_of(
        tensors, file, text_config=text_config.to_dict(), vision_config=vision_config, image_token_id=image_token_id
    )
    generation = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # Their rows of the head are in no published file, the original makes them up at random: they are never an answer.
        suppress_tokens=list(range(text_config.vocab_size - NUM_NEW_TOKENS, text_config.vocab_size)),
    )
    image_processor = load_image_processor(vision_path, config.vision_config.image_size)
    return Checkpoint(config, tensors | vision, tokenizer, image_processor, generation, source=text_folder)


def _beside(file: Path, given: str | os.PathLike | None, name: str, argument: str, what: str) -> Path:
    path = file.with_name(name) if given is None else Path(given).expanduser()
    if path.is_dir() or (path.is_file() and argument == "vision_model"):
        return path
    if given is not None:
        return resolve_folder(given)
    raise ValueError(
        f"{str(file)!r} is a part of OpenFlamingo: it also needs {what} it was trained on. Give {argument} (--{argument}), or put it "
        f"beside it in '{name}/'."
    )


def named_tensors(file: Path) -> Tensors:
    """The tensors of a PyTorch checkpoint, left on disk; nothing of it is run.

    Raises:
        ValueError: it holds no named tensors.
    """
    if not (found := read_header(file)):
        raise ValueError(f"{str(file)!r} holds no named tensors: it is no checkpoint of OpenFlamingo or Multimodal-GPT.")
    return {name: tensor.map() for name, tensor in found.items()}


def is_published(path: Path) -> bool:
    """Whether a file is OpenFlamingo's or Multimodal-GPT's, or a folder holds `checkpoint.pt`."""
    file = path / "checkpoint.pt" if path.is_dir() else path
    try:
        if not file.is_file():
            return False
        names = [name.removeprefix("module.") for name in read_header(file)]
    except ValueError:
        return False
    return any(name.startswith(("perceiver.", "lang_encoder.")) for name in names)


def _read_checkpoint_pt(file: Path) -> Tensors:
    stored = named_tensors(file)
    tensors: Tensors = {}
    for name, tensor in stored.items():
        ours = from_checkpoint(name)
        if ours is None:
            continue
        twin = tensors.setdefault(ours, tensor)
        if twin.data_ptr() != tensor.data_ptr() and not torch.equal(twin, tensor):
            raise ValueError(f"{str(file)!r} holds {ours!r} twice, with different values. Copy the file again.")
    if "perceiver.latents" not in tensors or EMBEDDINGS not in tensors:
        lora = any(from_lora(name) for name in stored)
        what = "a LoRA: give it as lora_model" if lora else "another model, or OpenFlamingo v2, which is none of LLaMA"
        raise ValueError(f"{str(file)!r} is no checkpoint of OpenFlamingo v1 but {what}. Its first names: {[*stored][:3]}.")
    return tensors


def _extend_vocabulary(tensors: Tensors, language: Tensors, text_config: Any, file: Path, text_folder: Path) -> None:
    """Give the language model the rows of the new tokens, after a look whether it is the one that was trained with."""
    embeddings = tensors.pop(EMBEDDINGS)
    own, head = language.get("model.embed_tokens.weight"), language.get("lm_head.weight")
    if own is None or head is None:
        raise ValueError(
            f"{str(text_folder)!r} is no LLaMA: its first tensors are {[*language][:3]}. Give the LLaMA of {file.name}."
        )
    if own.shape[1] != embeddings.shape[1] or own.shape[0] > embeddings.shape[0]:
        raise ValueError(
            f"{str(file)!r} was trained on a language model with {embeddings.shape[0]} x {embeddings.shape[1]} embeddings, new tokens "
            f"included, but that of {str(text_folder)!r} has {own.shape[0]} x {own.shape[1]}. Give the LLaMA it was trained on."
        )
    same, other = embeddings[: len(own)].float(), own.float()
    differing = int(((same - other).abs() > 2**-7 * other.abs() + 1e-6).any(-1).sum())
    if differing > len(own) // 100:
        raise ValueError(
            f"{differing} of {len(own)} token embeddings of {str(text_folder)!r} are not those that {str(file)!r} was trained with: "
            "it is another model of the same size (a Vicuna, say). Give the LLaMA it was trained on."
        )
    language["model.embed_tokens.weight"] = embeddings
    language["lm_head.weight"] = torch.cat([head, head.new_zeros(len(embeddings) - len(head), head.shape[1])])
    text_config.vocab_size = len(embeddings)


def _config_of(tensors: Tensors, file: Path, **fields: Any) -> OpenFlamingoConfig:
    """The sizes of perceiver and gated layers, from their tensors."""
    layers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("gated_cross_attn_layers.")})
    num_blocks = len({name.split(".")[2] for name in tensors if name.startswith("perceiver.layers.")})
    try:
        first = f"gated_cross_attn_layers.{layers[0]}"
        config = OpenFlamingoConfig(
            perceiver_config={
                "num_latents": tensors["perceiver.latents"].shape[0],
                "hidden_size": tensors["perceiver.latents"].shape[1],
                "num_hidden_layers": num_blocks,
                "head_dim": tensors["perceiver.layers.0.0.to_q.weight"].shape[0] // 8,
                "intermediate_size": tensors["perceiver.layers.0.1.1.weight"].shape[0],
            },
            cross_attn_every_n_layers=layers[0] + 1,
            cross_attn_head_dim=tensors[f"{first}.attn.to_q.weight"].shape[0] // 8,
            cross_attn_intermediate_size=tensors[f"{first}.ff.1.weight"].shape[0],
            **fields,
        )
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{str(file)!r} is a half checkpoint of OpenFlamingo: {error} is missing. Copy the file again."
        ) from error
    if config.gated_layers != layers:
        raise ValueError(
            f"{str(file)!r} has gated layers before the decoder layers {layers}, but a language model of "
            f"{config.text_config.num_hidden_layers} layers has them before {config.gated_layers}: they belong to another one."
        )
    return config


def read_clip(path: Path) -> tuple[dict[str, Any], Tensors]:
    """A CLIP vision encoder: its configuration, its weights.

    Args:
        path: a folder of transformers' CLIP, or a file of open_clip with, perhaps, its configuration in a `.json` of the same name.

    Raises:
        ValueError: there is no vision encoder of CLIP in it.
    """
    if path.is_dir():
        values = read_json(path / "config.json")
        config = values.get("vision_config", values) | {"model_type": "clip_vision_model"}
        named = ((from_clip(name), tensor) for name, tensor in load_tensors(path).items())
        tensors = {name: tensor for name, tensor in named if name is not None}
    else:
        stored = named_tensors(path)
        tensors = {}
        for name, tensor in stored.items():
            tensors |= from_open_clip(name, tensor)
        config = _open_clip_config(path, tensors) if tensors else {}
    if not tensors:
        raise ValueError(
            f"{str(path)!r} holds no vision encoder of CLIP. Give the CLIP ViT-L/14 that OpenFlamingo was trained on."
        )
    return config, tensors


def _open_clip_config(file: Path, tensors: Tensors) -> dict[str, Any]:
    settings = read_json(file.with_suffix(".json"))
    width, _, patch_px, _ = tensors["vision_model.embeddings.patch_embedding.weight"].shape
    num_patches = len(tensors["vision_model.embeddings.position_embedding.weight"]) - 1
    return {
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": sum(name.endswith(".mlp.fc1.weight") for name in tensors),
        "num_attention_heads": width // settings.get("vision_cfg", {}).get("head_width", 64),
        "patch_size": patch_px,
        "image_size": patch_px * round(num_patches**0.5),
        "hidden_act": "quick_gelu" if settings.get("quick_gelu", True) else "gelu",
    }


def add_lora(checkpoint: Checkpoint, path: Path) -> None:
    """Give a checkpoint an adapter: Multimodal-GPT's LoRA, or one of PEFT's over the language model or the whole model.

    Args:
        checkpoint: changed in place.
        path: `mmgpt-lora-v0-release.pt`, what its trainer writes, or an adapter's folder.

    Raises:
        FileNotFoundError, ValueError: the file is not there, is no LoRA, is half a LoRA, or belongs to another model.
    """
    if not path.is_file() and not (path / "adapter_config.json").is_file():
        raise FileNotFoundError(
            f"lora_model {str(path)!r} is neither an adapter's folder nor a file. Give mmgpt-lora-v0-release.pt, or what a trainer wrote."
        )
    settings = lora_settings(read_pickle(path)) if path.is_file() and path.suffix != ".safetensors" else {}
    prefixes = tuple(prefix for found in PARTS.values() for prefix in found)
    adapter = read_adapter(path, lambda name: from_checkpoint(name) or name, prefixes, LANGUAGE, defaults=settings)
    if not adapter.lora:
        raise ValueError(
            f"{str(path)!r} holds no LoRA: its first names are {[*adapter.whole][:3]}. Give mmgpt-lora-v0-release.pt."
        )
    config, tensors = checkpoint.config, checkpoint.tensors
    overlay = Overlay(tensors, language_model(config.text_config, language_tensors(tensors), path), LANGUAGE)
    overlay.changes.update(checkpoint.changes)
    with torch.device("meta"):
        named = OpenFlamingoForConditionalGeneration(copy.deepcopy(config)).named_modules()
    linear = {name for name, module in named if isinstance(module, torch.nn.Linear) and f"{name}.weight" in tensors}
    overlay.apply(adapter, linear if adapter.is_whole else (), [str, lambda module: module.removeprefix(LANGUAGE)])
    if overlay.num_rows != config.text_config.vocab_size:
        checkpoint.tokenizer = _tokenizer_of(path if path.is_dir() else path.parent, config, overlay.num_rows)
        config.text_config.vocab_size = overlay.num_rows
    config.text_config.tie_word_embeddings = overlay.is_tied
    checkpoint.tensors = {
        name: tensor.map() if isinstance(tensor, StoredTensor) else tensor for name, tensor in overlay.tensors.items()
    }
    checkpoint.changes = overlay.changes


def _tokenizer_of(folder: Path, config: OpenFlamingoConfig, num_rows: int) -> PreTrainedTokenizerBase:
    """The tokenizer of an adapter that brings new tokens, behind OpenFlamingo's own.

    Raises:
        ValueError: there is none, it has other tokens in OpenFlamingo's places, or more than the adapter has embeddings.
    """
    brings = (
        f"The adapter in {str(folder)!r} brings {num_rows} token embeddings where the model has {config.text_config.vocab_size}"
    )
    if not has_tokenizer(folder):
        raise ValueError(f"{brings}, but no tokenizer for them. Copy the tokenizer it was trained with into its folder.")
    tokenizer = load_tokenizer(folder)
    if (found := tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)) != config.image_token_id or len(tokenizer) > num_rows:
        raise ValueError(
            f"{brings}, but in its tokenizer of {len(tokenizer)} tokens {IMAGE_TOKEN!r} is {found}, not {config.image_token_id}: it "
            "was trained on a LLaMA without OpenFlamingo's tokens. Train it on a folder that `python -m training convert` wrote."
        )
    return tokenizer


def lora_settings(content: Any) -> dict[str, Any]:
    """`lora_alpha` and `r` of the settings beside the tensors, however they are wrapped; nothing where there are none, as in the
    release, whose scale is 1."""
    if isinstance(content, Mapping):
        if "lora_alpha" in content and "lora_r" in content:
            return {"lora_alpha": content["lora_alpha"], "r": content["lora_r"]}
        candidates = [*content.values(), *getattr(content, "arguments", ()), getattr(content, "state", None)]
    else:
        candidates = content if isinstance(content, (list, tuple)) else ()
    return next((found for found in map(lora_settings, candidates) if found), {})
