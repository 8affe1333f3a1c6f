"""A prompt is text parts and image parts. How long it is, is known before anything is encoded.

`Prompt` says what stands where; `PromptEncoder` turns it into ids for one tokenizer and one family, counts them, and cuts
prompts that are too long without ever cutting an image. Embeddings are in `embedder.py`.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .base import ImagePart, ImageSpan, VisionPipeline


@dataclass(frozen=True)
class Prompt:
    """Text parts and image parts in reading order.

    Attributes:
        parts: texts (str) and `ImagePart`s.
    """

    parts: tuple[str | ImagePart, ...]

    @classmethod
    def from_text(cls, text: str, images: Sequence[ImagePart], mark: str) -> "Prompt":
        """Split a rendered text at its image marks.

        Raises:
            ValueError: marks and images differ in number.
        """
        texts = text.split(mark)
        if len(texts) - 1 != len(images):
            raise ValueError(
                f"{len(texts) - 1} image marks {mark!r} in the prompt but {len(images)} images; there must be one mark per image."
            )
        parts: list[str | ImagePart] = [texts[0]]
        for image, after in zip(images, texts[1:], strict=True):
            parts += [image, after]
        return cls(tuple(part for part in parts if part != ""))

    @property
    def images(self) -> list[ImagePart]:
        return [part for part in self.parts if isinstance(part, ImagePart)]


@dataclass(frozen=True)
class EncodedPrompt:
    """Ids with a place for every image.

    Attributes:
        input_ids: T ids; for each image those that the family gives.
        image_spans: where each image stands among them.
    """

    input_ids: list[int]
    image_spans: list[ImageSpan]


@dataclass(frozen=True)
class Truncated:
    """What was left of a prompt, and what was not.

    Attributes:
        prompt: the parts that remain.
        encoded: their ids.
        dropped_images: the pictures that are gone, oldest first.
        dropped_tokens: how many ids are gone, images included.
    """

    prompt: Prompt
    encoded: EncodedPrompt
    dropped_images: list[ImagePart]
    dropped_tokens: int


class PromptEncoder:
    """Turns prompts into ids for one tokenizer and one family.

    Text is tokenised stretch by stretch, each stretch with the image marks at its ends, and remembered: asking again for the
    length of a conversation costs a dictionary look-up per stretch. Safe to use from several threads.

    Args:
        tokenizer: the language model's tokenizer.
        pipeline: the family, for its marks and for the ids that stand for an image.
        add_bos: put the tokenizer's BOS in front when the text does not begin with it.
        tokenize: text to ids without special tokens; `tokenizer`'s own when absent.
    """

    max_remembered_texts = 4096

    def __init__(
        self,
        tokenizer,
        pipeline: VisionPipeline,
        add_bos: bool = False,
        tokenize: Callable[[str], list[int]] | None = None,
    ):
        self.pipeline = pipeline
        self.tokenizer = tokenizer
        self.bos_token_id = tokenizer.bos_token_id
        self.add_bos = add_bos and self.bos_token_id is not None
        self._tokenize = tokenize or (lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])
        self._remembered: OrderedDict[str, list[int]] = OrderedDict()
        self._lock = threading.Lock()

    def length(self, prompt: Prompt) -> int:
        """The exact number of ids that `encode` gives."""
        stretches = self._stretches(prompt)
        num_ids = sum(len(self._ids(stretch)) for stretch in stretches if isinstance(stretch, str))
        return num_ids + sum(map(len, self._image_ids(stretches))) + self._lacks_bos(stretches)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        stretches = self._stretches(prompt)
        input_ids = [self.bos_token_id] if self._lacks_bos(stretches) else []
        spans = []
        ids_of_images = iter(self._image_ids(stretches))
        for stretch in stretches:
            if isinstance(stretch, ImagePart):
                ids = next(ids_of_images)
                spans.append(ImageSpan(len(input_ids), len(ids), stretch))
                input_ids += ids
            else:
                input_ids += self._ids(stretch)
        return EncodedPrompt(input_ids, spans)

    def truncate(self, prompt: Prompt, max_tokens: int) -> Truncated:
        """Drop whole oldest parts until the prompt fits; an image goes with its marks or stays whole.

        The newest part always stays. When it is a text that is too long by itself, its beginning is cut off. A BOS in front of
        the prompt stays in front of what is left.

        Raises:
            ValueError: `max_tokens` has no room for a single id, or the newest part is an image that does not fit.
        """
        if max_tokens < 1:
            raise ValueError(f"A prompt needs room for at least 1 token, but max_tokens is {max_tokens}.")
        encoded = self.encode(prompt)
        original_length = len(encoded.input_ids)
        if original_length <= max_tokens:
            return Truncated(prompt, encoded, [], 0)
        bos = encoded.input_ids[:1] if encoded.input_ids[0] == self.bos_token_id and max_tokens > 1 else []
        parts = prompt.parts
        while len(parts) > 1:
            parts = parts[1:]
            encoded = self._with_bos(bos, self.encode(Prompt(parts)))
            if len(encoded.input_ids) <= max_tokens:
                break
        if len(encoded.input_ids) > max_tokens:
            if encoded.image_spans:
                raise ValueError(
                    f"An image takes {len(encoded.input_ids)} tokens of the prompt, but only {max_tokens} are free. Give the "
                    "prompt more room: a larger context or fewer new tokens."
                )
            ids = encoded.input_ids[len(bos) :]
            encoded = EncodedPrompt(bos + ids[len(ids) - (max_tokens - len(bos)) :], [])
        dropped_images = prompt.images[: len(prompt.images) - len(encoded.image_spans)]
        return Truncated(Prompt(parts), encoded, dropped_images, original_length - len(encoded.input_ids))

    def _with_bos(self, bos: list[int], encoded: EncodedPrompt) -> EncodedPrompt:
        if not bos or encoded.input_ids[:1] == bos:
            return encoded
        spans = [ImageSpan(span.start + 1, span.length, span.image) for span in encoded.image_spans]
        return EncodedPrompt(bos + encoded.input_ids, spans)

    def _stretches(self, prompt: Prompt) -> list[str | ImagePart]:
        """The parts, with neighbouring texts and the marks around images joined into one text each."""
        stretches: list[str | ImagePart] = []
        text = ""
        for part in self.pipeline.arranged(prompt.parts):
            if isinstance(part, ImagePart):
                stretches += [text + self.pipeline.image_start, part]
                text = self.pipeline.image_end
            else:
                text += part
        stretches.append(text)
        return [stretch for stretch in stretches if stretch != ""]

    def _image_ids(self, stretches: list[str | ImagePart]) -> list[list[int]]:
        sizes = [stretch.size for stretch in stretches if isinstance(stretch, ImagePart)]
        return self.pipeline.image_ids(sizes, self.tokenizer) if sizes else []

    def _lacks_bos(self, stretches: list[str | ImagePart]) -> bool:
        if not self.add_bos:
            return False
        first = stretches[0] if stretches else ""
        return isinstance(first, ImagePart) or self._ids(first)[:1] != [self.bos_token_id]

    def _ids(self, text: str) -> list[int]:
        if not text:
            return []
        with self._lock:
            if text in self._remembered:
                self._remembered.move_to_end(text)
                return self._remembered[text]
        ids = list(self._tokenize(text))
        with self._lock:
            self._remembered[text] = ids
            while len(self._remembered) > self.max_remembered_texts:
                self._remembered.popitem(last=False)
        return ids
