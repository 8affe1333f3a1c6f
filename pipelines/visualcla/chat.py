"""Talking with a VisualCLA model about pictures: the original project's Python API, over many turns and many pictures.

    from pipelines import visualcla

    model, tokenizer, _ = visualcla.get_model_and_tokenizer_and_processor(visualcla_model="visualcla-7b")
    history = []
    visualcla.chat(model=model, image="photo.jpg", text="What is this?", history=history)

Source: Visual-Chinese-LLaMA-Alpaca, models/visualcla/modeling_utils.py, commit 6f93ced, Apache-2.0. Same names, arguments,
prompts and answers. What differs: text without an image works; later turns may bring more pictures; no argument is shared
between calls and no configuration is changed; the history grows after success only; nothing is printed; streaming gives the
last token too; dropout is off; the oldest turns go when the context is full.
"""

import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from PIL import Image
from transformers import GenerationConfig, PreTrainedModel

from ..base import ImagePart
from ..generation import ChatModel, Message
from ..images import load_image
from .checkpoint import load_pretrained
from .pipeline import SAMPLING, pipeline_of

Picture: TypeAlias = str | os.PathLike | bytes | Image.Image
History: TypeAlias = list[dict[str, Any]]

DEFAULT_GENERATION_CONFIG = GenerationConfig(**SAMPLING)
"""The original's sampling settings. Never changed by this module."""


def get_model_and_tokenizer_and_processor(
    visualcla_model: str | os.PathLike | None = None,
    text_model: str | os.PathLike | None = None,
    vision_model: str | os.PathLike | None = None,
    lora_model: str | os.PathLike | None = None,
    torch_dtype: torch.dtype = torch.float16,
    default_device: torch.device | str | None = None,
    device_map: Any = None,
    load_in_8bit: bool = False,
    load_in_4bit: bool = False,
):
    """Load a model as the original does.

    Args:
        visualcla_model: a whole model in any layout. Or give all three of the following.
        text_model: the language model under a release.
        vision_model: the vision encoder under a release.
        lora_model: the release. As in the original its tokenizer and configuration are used and its weights are not: resize the
            embeddings and put it on with `PeftModel.from_pretrained`, or call `load_pretrained`, which does both.
        torch_dtype: of the weights. On a CPU call `model.float()` where half precision is too slow.
        default_device: where the model goes when there is no `device_map`.
        device_map: as in transformers.
        load_in_8bit: quantise the language model through bitsandbytes; the eyes stay as they are.
        load_in_4bit: as `load_in_8bit`, with 4 bits.

    Returns:
        The model in evaluation mode, its tokenizer, its image processor.

    Raises:
        ValueError: neither a whole model nor all three parts were given.
    """
    settings = {"device_map": device_map, "load_in_8bit": load_in_8bit, "load_in_4bit": load_in_4bit}
    if visualcla_model is not None:
        model = load_pretrained(visualcla_model, dtype=torch_dtype, **settings)
    elif None in (text_model, vision_model, lora_model):
        given = {"text_model": text_model, "vision_model": vision_model, "lora_model": lora_model}
        missing = [name for name, value in given.items() if value is None]
        raise ValueError(
            f"Missing {missing}: give visualcla_model (a whole model), or text_model, vision_model and lora_model together."
        )
    else:
        model = load_pretrained(
            lora_model,
            text_model=text_model,
            vision_model=vision_model,
            dtype=torch_dtype,
            use_adapter=False,
            **settings,
        )
    if default_device is not None and device_map is None:
        model = model.to(default_device)
    return model, model.processor.tokenizer, model.processor.image_processor


def chat(
    model: PreTrainedModel,
    image: Picture | Sequence[Picture] | None,
    text: str,
    history: History | None = None,
    generation_config: GenerationConfig | None = None,
) -> tuple[str, History]:
    """Ask one question, about pictures or not.

    Args:
        model: from `get_model_and_tokenizer_and_processor` or `load_pretrained`, also inside a `PeftModel`.
        image: None, one picture or several. A picture that the conversation has already is not added again.
        text: the question.
        history: what was said before. Extended in place, after success only.
        generation_config: `DEFAULT_GENERATION_CONFIG` when absent.

    Returns:
        The answer, and the history with question and answer: items {"type": "instruction" or "response", "value": text};
        the first instruction also has "first_instruction": True, one that brought pictures "images".

    Raises:
        pipelines.images.ImageError: a picture cannot be read.
        ValueError: question and pictures do not fit the context.
    """
    history = [] if history is None else history
    config = generation_config or DEFAULT_GENERATION_CONFIG
    question, messages, images = _ask(image, text, history)
    response = _chat_model(model).answer(messages, images, config)
    history += [question, {"type": "response", "value": response}]
    return response, history


def chat_in_stream(
    model: PreTrainedModel,
    image: Picture | Sequence[Picture] | None,
    text: str,
    history: History | None = None,
    generation_config: GenerationConfig | None = None,
) -> Iterator[tuple[str, History]]:
    """As `chat`, yielding the answer so far and the history with it after every token.

    Leaving the iterator early stops the generation. The list passed as `history` is extended in place at the end.
    """
    history = [] if history is None else history
    config = generation_config or DEFAULT_GENERATION_CONFIG
    question, messages, images = _ask(image, text, history)
    response = ""
    for response in _chat_model(model).stream(messages, images, config):
        yield response, [*history, question, {"type": "response", "value": response}]
    history += [question, {"type": "response", "value": response}]


def _ask(image, text: str, history: History) -> tuple[dict[str, Any], list[Message], list[ImagePart]]:
    """The question as a history item, and the whole conversation with it: messages, and the pictures of their image items."""
    if image is None:
        given = []
    else:
        given = list(image) if isinstance(image, (list, tuple)) else [image]
    pictures = [ImagePart.of(load_image(source)) for source in given]
    turns = [_pictures_of(item, pictures) for item in history]
    known = {picture.key for turn in turns for picture in turn}
    new = [index for index, picture in enumerate(pictures) if picture.key not in known]

    question: dict[str, Any] = {"type": "instruction", "value": text}
    if not history:
        question["first_instruction"] = True
    if new or not history:
        question["images"] = [given[index] for index in new]
    turns.append([pictures[index] for index in new])

    messages = []
    for item, turn in zip([*history, question], turns, strict=True):
        content = [{"type": "image"} for _ in turn] + [{"type": "text", "text": item["value"]}]
        messages.append({"role": "user" if item["type"] == "instruction" else "assistant", "content": content})
    images = [picture for turn in turns for picture in turn]
    return question, messages, images


def _pictures_of(item: dict[str, Any], given: list[ImagePart]) -> list[ImagePart]:
    """The pictures of a turn. A history of the original's making names none: its first instruction is about those given now."""
    if "images" in item:
        return [ImagePart.of(load_image(source)) for source in item["images"]]
    return given if "first_instruction" in item else []


_chat_models: "weakref.WeakKeyDictionary[Any, ChatModel]" = weakref.WeakKeyDictionary()


def _chat_model(model: PreTrainedModel) -> ChatModel:
    """The same one for every turn, so that a picture is encoded once."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if getattr(whole, "processor", None) is None:
        raise ValueError(
            "The model has no processor. Load it with load_pretrained, or set model.processor = VisualCLAProcessor(...)."
        )
    if model not in _chat_models:
        _chat_models[model] = ChatModel(weakref.proxy(model), whole.processor, pipeline_of(whole, whole.processor))
    return _chat_models[model]
