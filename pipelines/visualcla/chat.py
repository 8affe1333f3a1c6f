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

import copy
import logging
import os
import queue
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from PIL import Image
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation import BaseStreamer

from ..embedder import EmbeddedPrompt, Embedder
from ..images import load_image
from ..prompt import ImagePart, Prompt, PromptEncoder
from .checkpoint import load_pretrained
from .pipeline import VisualCLAPipeline, evaluating
from .processing_visualcla import IMAGE_MARK

logger = logging.getLogger(__name__)

Picture: TypeAlias = str | os.PathLike | bytes | Image.Image
History: TypeAlias = list[dict[str, Any]]

DEFAULT_GENERATION_CONFIG = GenerationConfig(
    max_new_tokens=512,
    min_length=0,
    do_sample=True,
    top_p=0.9,
    top_k=40,
    num_beams=1,
    temperature=0.5,
    num_return_sequences=1,
    no_repeat_ngram_size=15,
    repetition_penalty=1.1,
)
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
    question, embedded = _ask(model, image, text, history, config)
    response = ""
    for response in _answer(model, embedded, config):  # noqa: B007 - the last one is the whole answer
        pass
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
    question, embedded = _ask(model, image, text, history, config)
    response = ""
    for response in _answer(model, embedded, config):
        yield response, [*history, question, {"type": "response", "value": response}]
    history += [question, {"type": "response", "value": response}]


@torch.no_grad()
def embed_conversation(
    model: PreTrainedModel, messages: list[dict[str, Any]], images: list[ImagePart], max_new_tokens: int = 0
) -> EmbeddedPrompt:
    """Ids and embeddings of a conversation, its oldest turns dropped when the context is full.

    Args:
        model: a VisualCLA model with its processor.
        messages: {"role", "content"} with one {"type": "image"} item per picture.
        images: the pictures in the order of those items.
        max_new_tokens: room to leave for the answer.

    Raises:
        ValueError: the newest turn alone does not fit.
    """
    if getattr(model, "processor", None) is None:
        raise ValueError(
            "The model has no processor. Load it with load_pretrained, or set model.processor = VisualCLAProcessor(...)."
        )
    embedder = _embedder(model)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    while True:
        rendered = model.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        prompt = Prompt.from_text(rendered, images, IMAGE_MARK)
        num_tokens = embedder.encoder.length(prompt)
        if context is None or num_tokens + min(max_new_tokens, context // 2) <= context:
            return embedder.embed(prompt, model)
        turns = [index for index, message in enumerate(messages) if message["role"] == "user"]
        if len(turns) < 2:
            raise ValueError(
                f"The question with its pictures takes {num_tokens} tokens of a context of {context}. Ask about fewer pictures at "
                "once, or shorten the text."
            )
        system = messages[: turns[0]]
        num_dropped = sum(_num_images(message) for message in messages[: turns[1]])
        logger.warning("The context is full: the oldest turn and %d pictures were left out.", num_dropped)
        messages, images = system + messages[turns[1] :], images[num_dropped:]


def generate_stream(
    model: PreTrainedModel, embedded: EmbeddedPrompt, generation_config: GenerationConfig
) -> Iterator[list[int]]:
    """Generate in a thread of its own; yields the growing list of new ids after every token. Closing the iterator stops it.

    Raises:
        Whatever the generation raised.
    """
    tokens = _TokenQueue()
    tokenizer = model.processor.tokenizer
    config, penalties = _without_penalties(generation_config, tokenizer)

    def run() -> None:
        try:
            with torch.inference_mode():
                model.generate(
                    inputs_embeds=embedded.inputs_embeds,
                    attention_mask=torch.ones_like(embedded.input_ids),
                    generation_config=config,
                    logits_processor=penalties,
                    streamer=tokens,
                    stopping_criteria=StoppingCriteriaList([tokens]),
                )
        except BaseException as error:
            tokens.fail(error)

    with evaluating(model):
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            new_ids: list[int] = []
            for token in tokens:
                new_ids.append(token)
                yield new_ids
        finally:
            tokens.stop()
            thread.join()


def _ask(
    model: PreTrainedModel, image, text: str, history: History, config: GenerationConfig
) -> tuple[dict[str, Any], EmbeddedPrompt]:
    """The question as a history item, and the whole conversation with it embedded."""
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
    return question, embed_conversation(model, messages, images, config.max_new_tokens or 0)


def _pictures_of(item: dict[str, Any], given: list[ImagePart]) -> list[ImagePart]:
    """The pictures of a turn. A history of the original's making names none: its first instruction is about those given now."""
    if "images" in item:
        return [ImagePart.of(load_image(source)) for source in item["images"]]
    return given if "first_instruction" in item else []


def _answer(model: PreTrainedModel, embedded: EmbeddedPrompt, config: GenerationConfig) -> Iterator[str]:
    for new_ids in generate_stream(model, embedded, config):
        yield model.processor.tokenizer.decode(new_ids, skip_special_tokens=True).rstrip("\ufffd")


def _num_images(message: dict[str, Any]) -> int:
    return sum(item["type"] == "image" for item in message["content"])


_embedders: "weakref.WeakKeyDictionary[Any, Embedder]" = weakref.WeakKeyDictionary()


def _embedder(model: PreTrainedModel) -> Embedder:
    """The embedder of a model, so that a picture is encoded once over all turns."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if whole not in _embedders:
        pipeline = VisualCLAPipeline(weakref.proxy(whole), whole.processor.image_processor)
        _embedders[whole] = Embedder(PromptEncoder(whole.processor.tokenizer, pipeline))
    return _embedders[whole]


class _ReplyPenalties(LogitsProcessor):
    """Repetition penalties that see BOS and the reply, never the prompt: what the original's generation from embeddings does."""

    def __init__(self, processors: LogitsProcessorList, bos_token_id: int | None):
        self.processors = processors
        self.bos_token_id = bos_token_id

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.bos_token_id is not None:
            input_ids = torch.cat([input_ids.new_full((len(input_ids), 1), self.bos_token_id), input_ids], dim=1)
        return self.processors(input_ids, scores)


def _without_penalties(generation_config: GenerationConfig, tokenizer) -> tuple[GenerationConfig, LogitsProcessorList]:
    """A copy for `generate` with the special ids filled in, and the repetition penalties as processors of the reply."""
    config = copy.deepcopy(generation_config)
    processors = LogitsProcessorList()
    if config.repetition_penalty not in (None, 1.0):
        processors.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    config.repetition_penalty, config.no_repeat_ngram_size = None, None
    config.bos_token_id = tokenizer.bos_token_id if config.bos_token_id is None else config.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id if config.eos_token_id is None else config.eos_token_id
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    wrapped = [_ReplyPenalties(processors, config.bos_token_id)] if processors else []
    return config, LogitsProcessorList(wrapped)


class _TokenQueue(BaseStreamer, StoppingCriteria):
    """Carries new tokens from the generating thread to an iterator, and the wish to stop the other way."""

    def __init__(self):
        self._queue: queue.Queue = queue.Queue()
        self._has_seen_prompt = False
        self._stopped = threading.Event()

    def put(self, value: torch.Tensor) -> None:
        if self._has_seen_prompt:
            for token in value.flatten().tolist():
                self._queue.put(token)
        self._has_seen_prompt = True

    def end(self) -> None:
        self._queue.put(None)

    def fail(self, error: BaseException) -> None:
        self._queue.put(error)

    def stop(self) -> None:
        self._stopped.set()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        return torch.full((len(input_ids),), self._stopped.is_set(), device=input_ids.device, dtype=torch.bool)

    def __iter__(self) -> Iterator[int]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
