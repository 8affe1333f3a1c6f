"""The contract between a family of vision-language models and everybody who uses one.

A family says which ids stand for a picture in a prompt, encodes pictures, and gives the language model what it needs beside
the ids. There are three ways in which pictures reach a language model, and nobody outside a family asks which one it is:

* embeddings in the prompt (VisualCLA, LLaVA, MiniGPT-4, mPLUG-Owl): `ImageFeatures.embeds` fill the placeholders;
* cross-attention inside the language model (OpenFlamingo): `attach` puts the layers in, `ImageFeatures.states` are attended to;
* native (a whole multimodal model of transformers): `ImageFeatures.inputs` go into its own `forward`.

Legend of shapes: B rows, T tokens of a row, L placeholders of one picture, K states of one picture, Dt and Dv the widths of
the language model's embeddings and of the states.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ImagePart:
    """A picture in a prompt: which one, how large; decoded when it is needed.

    Attributes:
        key: 32 hex digits that name the picture: the same for the same content.
        size: (width, height) in pixels, upright.
        open: decodes it; see `pipelines.images.load_image`.
    """

    key: str
    size: tuple[int, int]
    open: "Callable[[], Image.Image]" = field(compare=False, repr=False)

    @classmethod
    def of(cls, image: "Image.Image") -> "ImagePart":
        """A picture that is decoded already."""
        from .images import image_key

        return cls(image_key(image), image.size, lambda: image)


@dataclass(frozen=True)
class ImageSpan:
    """Where a picture stands among the ids of a prompt. Some ids are placeholders, others may be text (tile marks, line breaks).

    Attributes:
        start: position of its first id.
        length: number of ids.
        image: the picture.
    """

    start: int
    length: int
    image: ImagePart

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class ImageFeatures:
    """What one picture became; the unit that is cached.

    Attributes:
        embeds: (L, Dt), finite; they fill the placeholders of the picture's span in order.
        states: (K, Dv), finite; what cross-attention attends to.
        inputs: what a native model's `forward` takes for this picture, such as `pixel_values`.
    """

    embeds: "Tensor | None" = None
    states: "Tensor | None" = None
    inputs: "Mapping[str, Tensor] | None" = None

    @property
    def tensors(self) -> "list[Tensor]":
        """All of them."""
        return [tensor for tensor in (self.embeds, self.states, *(self.inputs or {}).values()) if tensor is not None]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True)
class ImageReading:
    """Where in a picture each of its embeddings was read.

    Attributes:
        where: (L, n, n), each of the L maps is non-negative and sums to 1, from the picture's top left.
        box: left, top, right, bottom, each 0..1: the part of the picture that the model is shown at all.
    """

    where: "Tensor"
    box: tuple[float, float, float, float]


class VisionPipeline(ABC):
    """How the pictures of one model reach a language model. That one is handed in where it is needed and never kept.

    Attributes:
        name: what the user is shown, such as "visualcla-7b".
        image_mark: what the family's chat template writes for one picture.
        image_start: text written before a picture's ids and tokenised together with what stands before it; may be empty.
        image_end: text written after them, tokenised with what follows; may be empty.
        placeholder_token_id: the id that `ImageFeatures.embeds` replace, or that stands for a picture otherwise: a real id of the
            vocabulary, and not the padding id, whose positions `generate` masks.
        embedding_width: Dt, which must be the language model's; None for a family that puts nothing between the embeddings.
        device: where pictures are encoded.
        sampling: how the family's original samples its answers, as keywords of `GenerationConfig`; empty where the model's own
            generation settings say it.
        adds_bos: a prompt whose template writes no BOS begins with it nevertheless.
        keeps_prefix: keys and values of prompts with pictures may be taken from an earlier prompt (`model_inputs`, `cached`). None:
            yes, but for native inputs, which only a family that was compared with cold runs may go on from.
        rows_together: which prompts one batch may hold, so that each is read as by itself; see `check_rows_together`.
        stop_strings: texts at which an answer ends, and which are no part of it: separators that the family's language model was
            taught to write before the next turn, where EOS does not do it.
    """

    name: str
    image_mark: str
    image_start: str = ""
    image_end: str = ""
    placeholder_token_id: int
    embedding_width: int | None = None
    device: "torch.device | str" = "cpu"
    sampling: "Mapping[str, Any]" = MappingProxyType({})
    adds_bos: bool = False
    keeps_prefix: bool | None = None
    rows_together: str = "any"
    stop_strings: Sequence[str] = ()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever the weights that `encode_images` uses change; part of every cache key."""

    @abstractmethod
    def image_ids(self, sizes: Sequence[tuple[int, int]], tokenizer) -> list[list[int]]:
        """The ids that stand for each picture of a prompt, between `image_start` and `image_end`.

        Args:
            sizes: (width, height) of all pictures of the prompt together, in reading order: some families spend fewer ids on each
                when there are several.
            tokenizer: the language model's, for ids that are text.

        Returns:
            One non-empty list of ids per picture.
        """

    @abstractmethod
    def encode_images(self, images: "Sequence[Image.Image]", lengths: Sequence[int] | None = None) -> list[ImageFeatures]:
        """Encode pictures.

        Args:
            images: N >= 1 pictures as `pipelines.images.load_image` gives them (RGB or RGBA; alpha is the family's choice).
            lengths: how many ids `image_ids` gave for each of them. Only families whose pictures have no fixed length read it.

        Returns:
            N features, finite and without gradient.
        """

    def embed_images(self, images: "Sequence[Image.Image]") -> "Tensor":
        """The embeddings of pictures as one tensor, as the web UI's former contract gave them.

        Returns:
            (N, L, Dt).

        Raises:
            ValueError: the family puts no embeddings into the prompt, or not the same number for each picture.
        """
        import torch

        embeds = [features.embeds for features in self.encode_images(images)]
        if any(each is None for each in embeds) or len({each.shape for each in embeds}) != 1:
            raise ValueError(f"{self.name} has no fixed number of embeddings per picture; call encode_images.")
        return torch.stack(embeds)

    def looks_at(self, spans: Sequence[ImageSpan], length: int) -> Sequence[tuple[int, int, str]]:
        """Which positions of a prompt depend on a picture that does not stand before them, or on there being one at all.

        Args:
            spans: where the pictures stand.
            length: number of ids of the prompt.

        Returns:
            (start, end, what they depend on). Keys and values of such a position are those of an earlier prompt only where this is
            the same, too; what is generated behind the prompt depends on what its last position depends on. Here nothing for
            embeddings in the prompt, and for all others every position on all pictures.
        """
        if self.embedding_width is not None or not spans:
            return ()
        return [(0, length, ",".join(f"{span.image.key}:{span.start}:{span.length}" for span in spans))]

    def arranged(self, parts: "Sequence[str | ImagePart]") -> "Sequence[str | ImagePart]":
        """The parts of a prompt with what the family writes between a picture and its neighbours.

        Its own chat template has written that already; somebody else's, such as a chat's that puts bare marks before a question,
        has not. Arranging twice changes nothing. Default: as they are.
        """
        return parts

    def readings(self, images: "Sequence[Image.Image]") -> list[ImageReading] | None:
        """Where in each picture its embeddings were read; None where the family cannot tell."""
        return None

    def attach(self, language_model: "PreTrainedModel") -> AbstractContextManager:
        """Put into a language model what the family needs inside it; leaving the context takes it off again."""
        return nullcontext()

    def model_inputs(
        self,
        language_model: "PreTrainedModel",
        input_ids: "Tensor",
        attention_mask: "Tensor | None",
        spans: Sequence[Sequence[ImageSpan]],
        features: Sequence[Sequence[ImageFeatures]],
        cached: int = 0,
    ) -> "dict[str, Tensor]":
        """What `forward` or `generate` gets beside ids and mask, so that the language model sees the pictures.

        Also called for prompts without pictures, so that none of an earlier prompt stays in force.

        Args:
            language_model: any model with `get_input_embeddings`; a PEFT wrapper, quantised or dispatched one too.
            input_ids: (B, T), all ids of the prompt, padding included.
            attention_mask: (B, T); None when nothing is padded.
            spans: for each row, where its pictures stand, padding counted.
            features: for each row, the features of those pictures.
            cached: this many ids of each row stand in the key/value cache already, with their pictures; what is returned is for
                the ids behind them. Never within a span.

        Returns:
            Here `inputs_embeds` (B, T - cached, Dt) when there is a picture behind `cached`, else nothing. Others may return what the
            model's own `forward` takes for the ids behind `cached`.

        Raises:
            ValueError: a span and its features do not fit, or `cached` lies within a span.
        """
        given = [
            (row, span, found)
            for row, (places, of_row) in enumerate(zip(spans, features, strict=True))
            for span, found in zip(places, of_row, strict=True)
            if span.end > cached
        ]
        if not given:
            return {}
        embeds = language_model.get_input_embeddings()(input_ids[:, cached:]).clone()
        if embeds.shape[-1] != self.embedding_width:
            raise ValueError(
                f"{self.name} gives embeddings of width {self.embedding_width}, but the language model's width is "
                f"{embeds.shape[-1]}: this vision model belongs to another language model."
            )
        for row, span, found in given:
            if span.start < cached:
                raise ValueError(f"{cached} cached ids end within a picture, which stands at {span.start} to {span.end}.")
            is_placeholder = input_ids[row, span.start : span.end] == self.placeholder_token_id
            positions = is_placeholder.nonzero().squeeze(1) + span.start - cached
            if len(positions) != len(found.embeds):
                raise ValueError(
                    f"{len(positions)} placeholders in the prompt but {len(found.embeds)} embeddings of a picture. Was the prompt "
                    "cut inside it?"
                )
            embeds[row, positions] = found.embeds.to(embeds)
        return {"inputs_embeds": embeds}

    can_use_tiles = False
    """Whether it can be chosen that parts of a picture are shown magnified, too."""

    def limit_pictures(self, max_pixels: int | None = None, use_tiles: bool | None = None) -> None:
        """Spend more or fewer ids on each picture than the family would by itself. Nothing where each takes a fixed number.

        Args:
            max_pixels: a larger picture is shown as one of so many pixels; None for the family's own limit.
            use_tiles: whether parts of a picture are shown magnified, too; None for the family's own way.

        Raises:
            ValueError: the family cannot do what `use_tiles` asks for.
        """
        return None

    def image_lengths(
        self, sizes: Sequence[tuple[int, int]], max_pixels: int | None = None, use_tiles: bool | None = None
    ) -> list[int] | None:
        """How many ids would stand for each picture of a prompt under these limits, whichever are set; None where a picture takes
        what it takes.

        Args:
            sizes: of all pictures, (width, height) in pixels.
            max_pixels: see `limit_pictures`.
            use_tiles: see `limit_pictures`.
        """
        return None

    def move(self, device: "torch.device | str", dtype: "torch.dtype | None" = None) -> None:
        """Encode pictures on another device, or in another precision.

        Raises:
            ValueError: this family cannot.
        """
        raise ValueError(f"{self.name} cannot be moved; load it where it is needed.")

    def move_projector(self, device: "torch.device | str", dtype: "torch.dtype") -> None:
        """Keep what stands behind the vision encoder on another device, or in another precision.

        Raises:
            ValueError: this family cannot.
        """
        raise ValueError(f"{self.name} cannot keep its projector apart; leave multimodal_vcla-projector_* empty.")


def check_rows_together(rule: str, counts: Sequence[int]) -> None:
    """
    Args:
        rule: "any" rows may stand in one batch; or "even" ones, of as many pictures each; or with pictures one "alone".
        counts: pictures of each row.

    Raises:
        ValueError: they may not, as the model would read them otherwise than each by itself.
    """
    if (rule == "even" and len(set(counts)) > 1) or (rule == "alone" and sum(map(bool, counts)) > 1):
        numbers = ", ".join(map(str, counts))
        raise ValueError(f"In one batch this model would not read prompts of {numbers} pictures as each by itself.")
