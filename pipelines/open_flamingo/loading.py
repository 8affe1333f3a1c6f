"""OpenFlamingo and Multimodal-GPT from files: the published ones as they lie, and the folders that this project writes.

| layout         | what it is                                                                                          |
| -------------- | --------------------------------------------------------------------------------------------------- |
| `webui`        | the language model at the root, everything else in `vision/`: what the web UI's loaders open        |
| `transformers` | one composite checkpoint: what transformers' Auto classes open                                      |
| `original`     | `checkpoint.pt`; LLaMA and CLIP lie beside it in `llama/` and `clip/`, or are given                 |

Multimodal-GPT's LoRA, `mmgpt-lora-v0-release.pt` or what its trainer writes, goes on top of any of them and is merged into
the weights on the way (`adapter.py`). `published.py` reads the original, `saving.py` writes the layouts, `layouts.py` knows the names.
"""

import copy
import os
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, BitsAndBytesConfig, GenerationConfig

from ..composite.tensors import check_placed
from ..embedder import embedding_device
from ..json_files import read_json
from ..weights import load_tensors
from .adapter import add_lora
from .checkpoint import Checkpoint, Tensors, language_tensors, vision_tensors
from .configuration_open_flamingo import OpenFlamingoConfig
from .modeling_open_flamingo import OpenFlamingoForConditionalGeneration, OpenFlamingoVisionModel
from .pipeline import OpenFlamingoPipeline
from .processing_open_flamingo import IMAGE_TOKEN, OpenFlamingoProcessor, load_image_processor, load_tokenizer
from .published import read_original


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
    model.processor = _processor(checkpoint)
    return model.eval(), model.processor


def load_processor(folder: str | os.PathLike) -> OpenFlamingoProcessor:
    """See `pipelines.registry.load_processor`."""
    return _processor(read_checkpoint(folder))


def _processor(checkpoint: Checkpoint) -> OpenFlamingoProcessor:
    return OpenFlamingoProcessor(checkpoint.image_processor, checkpoint.tokenizer, checkpoint.chat_template)


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
        checkpoint = read_original(original, text_model, vision_model)
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
