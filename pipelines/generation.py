"""A conversation about pictures to an answer, streamed or not, for every family: what page, terminal, evaluation and Python use.

model, processor = load_model("visualcla-7b")
chat = ChatModel(model, processor)
messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
for answer in chat.stream(messages, [ImagePart.of(load_image("photo.jpg"))], config):
    print(answer)
"""

import copy
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jinja2 import TemplateError
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
)

from .base import ImagePart, ImageSpan, VisionPipeline
from .chat_template import apply_chat_template
from .decoding import FiniteScores, ReplyPenalties, TokenQueue
from .embedder import Embedder, ImageFeatureCache, PreparedPrompt, embedding_device, evaluating
from .prefix_cache import PrefixCache
from .prompt import Prompt, PromptEncoder
from .registry import pipeline_of
from .shared_prefix import share_prefixes

logger = logging.getLogger(__name__)

DROPPED_AT_ONCE = 4
"""How many of the oldest turns leave a full context together."""

Message: TypeAlias = dict[str, Any]
"""{"role", "content"}; content is a text, or a list of {"type": "image"} and {"type": "text", "text"} items."""


@dataclass(frozen=True)
class PreparedConversation:
    """A conversation as the model is given it.

    Attributes:
        prompt: its ids and what goes beside them.
        num_dropped_images: how many of the oldest pictures were left out because the context was full.
    """

    prompt: PreparedPrompt
    num_dropped_images: int

    @property
    def input_ids(self) -> torch.Tensor:
        return self.prompt.input_ids

    @property
    def num_tokens(self) -> int:
        return self.prompt.input_ids.shape[1]

    @property
    def image_spans(self) -> list[ImageSpan]:
        return self.prompt.image_spans


class ChatModel:
    """A model that answers about pictures.

    Args:
        model: a whole model, as `pipelines.load_model` gives it, also inside a `PeftModel`; or a bare language model together with
            a `pipeline` for it.
        processor: its processor: a tokenizer and a chat template that writes `pipeline.image_mark` for each picture.
        pipeline: how pictures reach it; the model's own family when absent.
        cache: image features; of its own when absent.
        prefix_cache: keys and values of what was said before; of its own when absent, `PrefixCache(max_bytes=0)` for none.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        pipeline: VisionPipeline | None = None,
        cache: ImageFeatureCache | None = None,
        prefix_cache: PrefixCache | None = None,
    ):
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.pipeline = pipeline_of(model, processor) if pipeline is None else pipeline
        self.embedder = Embedder(PromptEncoder(self.tokenizer, self.pipeline, self.pipeline.adds_bos), cache)
        self.prefix_cache = PrefixCache() if prefix_cache is None else prefix_cache

    @property
    def max_tokens(self) -> int | None:
        """Size of the context; None where the model does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def num_image_tokens(self, sizes: Sequence[tuple[int, int]]) -> list[int]:
        """What pictures of these sizes cost when they stand in one prompt, their marks included."""
        around = sum(
            len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in (self.pipeline.image_start, self.pipeline.image_end)
            if text
        )
        return [len(ids) + around for ids in self.pipeline.image_ids(sizes, self.tokenizer)]

    def render(self, messages: Sequence[Message], images: Sequence[ImagePart]) -> Prompt:
        """The prompt of a conversation. A mark that stands in a text is kept as text and never taken for a picture.

        Raises:
            ValueError: image items and images differ in number, or something else than pictures and texts is shown.
        """
        content = [item for message in messages if not isinstance(message["content"], str) for item in message["content"]]
        if other := next((item["type"] for item in content if item["type"] not in ("image", "text")), None):
            raise ValueError(f"Only pictures and texts are taken ('image', 'text'), not {other!r}. Leave it out.")
        try:
            rendered = apply_chat_template(
                self.processor,
                [without_typed_marks(message, self.pipeline.image_mark) for message in messages],
                add_generation_prompt=True,
                tokenize=False,
            )
        except (TemplateError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise ValueError(
                f"The model's chat template fails: {' '.join(str(error).split())[:200]}. Copy it again."
            ) from error
        if not rendered.strip():
            raise ValueError("The model's chat template writes nothing for this conversation. Copy chat_template.jinja again.")
        return Prompt.from_text(rendered, images, self.pipeline.image_mark)

    def prepare(
        self, messages: Sequence[Message], images: Sequence[ImagePart], max_new_tokens: int = 0
    ) -> PreparedConversation:
        """Ids and model inputs of a conversation, its oldest turns dropped when the context is full.

        Args:
            messages: what was said; the last message is the user's.
            images: the pictures in the order of the image items.
            max_new_tokens: room to leave for the answer.

        Raises:
            ValueError: the newest turn alone does not fit.
        """
        num_given = len(images)
        while True:
            prompt = self.render(messages, images)
            num_tokens = self.embedder.encoder.length(prompt)
            context = self.max_tokens
            if context is None or num_tokens + min(max_new_tokens, context // 2) <= context:
                with evaluating(self.model):
                    prepared = self.embedder.prepare(prompt, self.model)
                return PreparedConversation(prepared, num_given - len(images))
            turns = [index for index, message in enumerate(messages) if message["role"] == "user"]
            if len(turns) < 2:
                raise ValueError(
                    f"The question with its pictures takes {num_tokens} tokens of a context of {context}. Ask about fewer pictures "
                    "at once, or shorten the text."
                )
            system = messages[: turns[0]]
            # Several at once, so that the next turns begin alike and find their keys and values kept.
            count = min(DROPPED_AT_ONCE, max(1, len(turns) // 2))
            num_dropped = sum(map(_num_images, messages[: turns[count]]))
            logger.warning("The context is full: the oldest %d turns and %d pictures were left out.", count, num_dropped)
            messages, images = [*system, *messages[turns[count] :]], images[num_dropped:]

    def stream(
        self, messages: Sequence[Message], images: Sequence[ImagePart], generation_config: GenerationConfig
    ) -> Iterator[str]:
        """The answer so far, after every token. Closing the iterator stops the generation.

        Raises:
            ValueError: see `prepare`.
            Whatever the generation raised.
        """
        prepared = self.prepare(messages, images, generation_config.max_new_tokens or 0)
        with closing(self.stream_ids(prepared, generation_config)) as ids:
            for new_ids in ids:
                yield self.decode(new_ids)

    def answer(self, messages: Sequence[Message], images: Sequence[ImagePart], generation_config: GenerationConfig) -> str:
        """The whole answer; see `stream`."""
        answer = ""
        for answer in self.stream(messages, images, generation_config):  # noqa: B007 - the last one is the whole answer
            pass
        return answer

    def answer_batch(
        self,
        conversations: Sequence[tuple[Sequence[Message], Sequence[ImagePart]]],
        generation_config: GenerationConfig,
    ) -> list[str]:
        """The answers of several conversations, generated together in one batch, padded on the left. Where some of them show the same
        pictures after the same words, that is computed once.

        Greedily these are the answers that each conversation gets by itself, within the precision of the arithmetic.

        Raises:
            ValueError: see `prepare`.
        """
        prepared = [self.prepare(*each, generation_config.max_new_tokens or 0).prompt for each in conversations]
        with evaluating(self.model), torch.inference_mode(), self.pipeline.attach(self.model):
            config, _ = self._settings(generation_config, 0)
            shared = share_prefixes(self.model, self.pipeline, prepared, config)
            starts = [0] * len(prepared) if shared is None else shared.lengths
            longest = max(prompt.input_ids.shape[1] - start for prompt, start in zip(prepared, starts, strict=True))
            ids = torch.full((len(prepared), longest), config.pad_token_id, device=embedding_device(self.model))
            mask = torch.zeros_like(ids)
            spans = []
            for row, (prompt, start) in enumerate(zip(prepared, starts, strict=True)):
                padding = longest - (prompt.input_ids.shape[1] - start)
                ids[row, padding:], mask[row, padding:] = prompt.input_ids[0, start:], 1
                spans.append([ImageSpan(span.start + padding, span.length, span.image) for span in prompt.image_spans])
            if shared is None:
                inputs = self.pipeline.model_inputs(self.model, ids, mask, spans, [prompt.features for prompt in prepared])
            else:
                ids, mask = torch.cat((shared.ids, ids), 1), torch.cat((shared.mask, mask), 1)
                inputs = {"past_key_values": shared.cache}
            config, penalties = self._settings(generation_config, ids.shape[1])
            generated = self.model.generate(
                ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=penalties,
                tokenizer=self.tokenizer,
                **inputs,
            )
        stops = {config.eos_token_id} if isinstance(config.eos_token_id, int) else set(config.eos_token_id or ())
        answers = []
        for row in generated[:, ids.shape[1] :].tolist():
            end = next((place for place, token in enumerate(row) if token in stops), len(row))
            answers.append(self.decode(row[:end]))
        return answers

    def answer_each(
        self,
        conversations: Sequence[tuple[Sequence[Message], Sequence[ImagePart]]],
        generation_config: GenerationConfig,
    ) -> list[str | Exception]:
        """The answers of several conversations as `answer_batch` gives them; one that cannot be answered takes no other one along.

        Returns:
            For each conversation its answer, or the `ValueError` or `OSError` that kept it from one: a picture that does not open, a
            question that does not fit.

        Raises:
            MemoryError: the batch does not fit.
        """
        try:
            return list(self.answer_batch(conversations, generation_config)) if conversations else []
        except (ValueError, OSError) as error:
            if len(conversations) == 1:
                return [error]
            return [self.answer_each([each], generation_config)[0] for each in conversations]
        except torch.OutOfMemoryError as error:
            raise MemoryError(f"{len(conversations)} questions at once do not fit. Give a smaller --batch_size.") from error

    def log_likelihoods(
        self, messages: Sequence[Message], images: Sequence[ImagePart], continuations: Sequence[str]
    ) -> list[float]:
        """How likely each continuation is as the answer.

        Args:
            messages: what was said; the last message is the user's.
            images: the pictures in the order of the image items.
            continuations: texts that an answer may begin with.

        Returns:
            For each continuation the sum over its tokens of log p(token | what stands before it), in nats, <= 0. Tokens are those
            of prompt and continuation tokenised together, from the first one on in which the prompts with the continuations differ
            from the prompt alone.

        Raises:
            ValueError: a continuation is empty, or a prompt does not fit; see `prepare`.
        """
        if not all(continuations):
            raise ValueError("A continuation is empty, so there is nothing that could be likely. Leave it out.")
        encode = self.embedder.encoder.encode
        prompt = self.render(messages, images)
        alone = encode(prompt).input_ids
        *before, last = prompt.parts
        whole = [Prompt((*before, last + text) if isinstance(last, str) else (*before, last, text)) for text in continuations]
        ids = [encode(each).input_ids for each in whole]
        start = min(_common(alone, each) for each in ids)
        longest = max(map(len, ids))
        if self.max_tokens is not None and longest > self.max_tokens:
            raise ValueError(f"The question with its answer takes {longest} tokens of a context of {self.max_tokens}.")
        device = embedding_device(self.model)
        with evaluating(self.model), torch.inference_mode(), self.pipeline.attach(self.model):
            prepared = [self.embedder.prepare(each, self.model) for each in whole]
            padded = torch.zeros((len(ids), longest), dtype=torch.long, device=device)
            mask = torch.zeros_like(padded)
            for row, each in enumerate(ids):
                padded[row, : len(each)], mask[row, : len(each)] = torch.tensor(each, device=device), 1
            spans, features = [each.image_spans for each in prepared], [each.features for each in prepared]
            inputs = self.pipeline.model_inputs(self.model, padded, mask, spans, features)
            inputs = inputs if "inputs_embeds" in inputs else {"input_ids": padded, **inputs}
            logits = self.model(**inputs, attention_mask=mask).logits[:, start - 1 : -1].float()
        log_p = logits.log_softmax(-1).gather(2, padded[:, start:, None].to(logits.device)).squeeze(2)
        return (log_p * mask[:, start:].to(log_p.device)).sum(1).tolist()

    def stream_ids(self, prepared: PreparedConversation, generation_config: GenerationConfig) -> Iterator[list[int]]:
        """Generate in a thread of its own; yields the growing list of new ids after every token. Closing the iterator stops it.

        With beams there is one list, the whole answer: until the end another beam may win.

        Raises:
            Whatever the generation raised.
        """
        tokens = TokenQueue()
        prompt = prepared.prompt
        prompt_length = prompt.input_ids.shape[1]
        config, penalties = self._settings(generation_config, prompt_length)
        has_beams = (config.num_beams or 1) > 1

        def run() -> None:
            try:
                with torch.inference_mode(), self.pipeline.attach(self.model):
                    # What the pictures are is asked again in there: what is inside the language model is in force for whoever
                    # asked last.
                    generated = self.prefix_cache.generate(
                        self.model.generate,
                        self.model,
                        prompt.input_ids,
                        self.pipeline,
                        prompt.image_spans,
                        prompt.features,
                        attention_mask=torch.ones_like(prompt.input_ids),
                        generation_config=config,
                        logits_processor=penalties,
                        tokenizer=self.tokenizer,
                        streamer=None if has_beams else tokens,
                        stopping_criteria=StoppingCriteriaList([tokens]),
                    )
                    if has_beams:
                        tokens.give(generated[0, prompt_length:].tolist())
            except BaseException as error:
                tokens.fail(error)

        with evaluating(self.model):
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            try:
                new_ids: list[int] = []
                for token in tokens:
                    new_ids.append(token)
                    if not has_beams:
                        yield new_ids
                if has_beams:
                    yield new_ids
            finally:
                tokens.stop()
                thread.join()

    def decode(self, new_ids: Sequence[int]) -> str:
        """Ids of an answer to text; what may still become a character, and what stands behind a stop string, is left out."""
        text = self.tokenizer.decode(new_ids, skip_special_tokens=True).rstrip("\ufffd")
        for stop in self.pipeline.stop_strings:
            text = text.partition(stop)[0]
        return text

    def _settings(
        self, generation_config: GenerationConfig, prompt_length: int
    ) -> tuple[GenerationConfig, LogitsProcessorList]:
        """A copy for `generate` with the special ids filled in, and the repetition penalties as processors of the reply."""
        config, tokenizer = copy.deepcopy(generation_config), self.tokenizer
        processors = LogitsProcessorList()
        if config.repetition_penalty not in (None, 1.0):
            processors.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
        if config.no_repeat_ngram_size:
            processors.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
        config.repetition_penalty, config.no_repeat_ngram_size = None, None
        config.stop_strings = [*self.pipeline.stop_strings, *(config.stop_strings or [])] or None
        own = self.model.generation_config
        if config.eos_token_id is None:  # the model's may be several: the end of a turn, and of a text
            ends = _as_list(getattr(own, "eos_token_id", None)) + _as_list(tokenizer.eos_token_id)
            config.eos_token_id = list(dict.fromkeys(ends)) or None
        for name in ("bos_token_id", "pad_token_id"):
            if getattr(config, name) is None:
                known = getattr(tokenizer, name)
                setattr(config, name, getattr(own, name, None) if known is None else known)
        if config.pad_token_id is None:
            eos = config.eos_token_id
            config.pad_token_id = eos[0] if isinstance(eos, list) else 0 if eos is None else eos
        wrapped = [ReplyPenalties(processors, config.bos_token_id, prompt_length)] if processors else []
        return config, LogitsProcessorList([FiniteScores(), *wrapped])


def message(role: str, text: str, num_images: int = 0) -> Message:
    """A message as chat templates take it, its pictures before its text."""
    return {"role": role, "content": [{"type": "image"}] * num_images + [{"type": "text", "text": text}]}


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next(
        (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _num_images(message: Message) -> int:
    content = message["content"]
    return 0 if isinstance(content, str) else sum(item["type"] == "image" for item in content)


def without_typed_marks(message: Message, mark: str) -> Message:
    """The message with every mark that stands in a text broken in two, as in training."""
    mark = mark.strip()

    def clean(text: str) -> str:
        return text.replace(mark, f"{mark[:4]} {mark[4:]}")

    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": clean(content)}
    return {**message, "content": [{**item, "text": clean(item["text"])} if "text" in item else item for item in content]}
