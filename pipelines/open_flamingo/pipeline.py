"""OpenFlamingo as a `VisionPipeline`: for a language model that somebody else runs, and for a whole model."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from ..base import ImageFeatures, ImagePart, ImageSpan, VisionPipeline
from ..embedder import evaluating, weights_fingerprint
from .modeling_open_flamingo import OpenFlamingoForConditionalGeneration, OpenFlamingoVisionModel
from .processing_open_flamingo import IMAGE_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedModel


IMAGE_BLOCK = "### Image:"
INSTRUCTION_BLOCK = "### Instruction:\n"


class OpenFlamingoPipeline(VisionPipeline):
    """A picture is one token, `<image>`, and states that gated layers inside the language model attend to.

    `attach` puts these layers in. `model_inputs` puts the pictures of a prompt in force, or none; it returns nothing.

    Args:
        model: the vision model, or a whole model, whose language model has the gated layers for good.
        image_processor: the checkpoint's.
        name: shown to the user.
        max_batch: pictures encoded at once; bounds the memory of a long conversation's first sight.
    """

    image_mark = IMAGE_TOKEN
    embedding_width = None
    # Multimodal-GPT's demo, without its three beams: a streamed answer has one.
    sampling = {"do_sample": True, "top_k": 20, "top_p": 1.0, "temperature": 1.0, "max_new_tokens": 512}

    def __init__(
        self,
        model: OpenFlamingoVisionModel | OpenFlamingoForConditionalGeneration,
        image_processor: Any,
        name: str = "open_flamingo",
        max_batch: int = 16,
    ):
        if model.config.image_token_id is None:
            raise ValueError("The vision model does not know the id of '<image>': its config.json has no image_token_id.")
        self.model = model
        self.image_processor = image_processor
        self.name = name
        self.max_batch = max_batch
        self.placeholder_token_id = model.config.image_token_id

    @property
    def device(self) -> torch.device:
        return self.model.vision_model.device

    @property
    def fingerprint(self) -> str:
        """Of the weights as they are in memory, gated layers included: what they compute stands in keys and values."""
        own = [each for each in self.model.named_parameters() if not each[0].startswith("language_model.")]
        return f"{self.name}:{weights_fingerprint(own, self.model.modules())}"

    def image_ids(self, sizes: Sequence[tuple[int, int]], tokenizer) -> list[list[int]]:
        return [[self.placeholder_token_id] for _ in sizes]

    def arranged(self, parts: Sequence[str | ImagePart]) -> list[str | ImagePart]:
        """Every picture in a block of its own, `### Image:`, before the instruction that it stands at the beginning of."""
        found: list[str | ImagePart] = []
        instruction = ""
        for part in parts:
            if isinstance(part, ImagePart):
                before = found.pop() if found and isinstance(found[-1], str) else ""
                if before.endswith(INSTRUCTION_BLOCK):
                    before, instruction = before.removesuffix(INSTRUCTION_BLOCK), INSTRUCTION_BLOCK
                found += [before if before.rstrip().endswith(IMAGE_BLOCK) else before + IMAGE_BLOCK, part]
            else:
                found.append(instruction + part)
                instruction = ""
        return [*found, instruction] if instruction else found

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image], lengths: Sequence[int] | None = None) -> list[ImageFeatures]:
        features = []
        with evaluating(self.model):
            for start in range(0, len(images), self.max_batch):
                rgb = [image.convert("RGB") for image in images[start : start + self.max_batch]]
                pixel_values = self.image_processor(rgb, return_tensors="pt")["pixel_values"]
                # A copy of each, so that one picture does not keep a whole batch in memory.
                features += [ImageFeatures(states=states.clone()) for states in self.model.get_image_features(pixel_values)]
        return features

    def attach(self, language_model: "PreTrainedModel") -> AbstractContextManager:
        return self.model.conditioning.attach(language_model)

    def model_inputs(
        self,
        language_model: "PreTrainedModel",
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        spans: Sequence[Sequence[ImageSpan]],
        features: Sequence[Sequence[ImageFeatures]],
        cached: int = 0,
    ) -> dict[str, torch.Tensor]:
        rows = language_model.get_input_embeddings().weight.shape[0]
        if any(spans) and rows <= self.placeholder_token_id:
            raise ValueError(
                f"{self.name} writes a picture as token {self.placeholder_token_id}, but the language model has {rows} embeddings: "
                "it is not the one of this checkpoint. Load the language model that lies in the same folder."
            )
        is_image = torch.zeros_like(input_ids, dtype=torch.bool)
        for row, places in enumerate(spans):
            for span in places:
                is_image[row, span.start : span.end] = True
        states = [torch.stack([found.states for found in of_row]) if of_row else None for of_row in features]
        self.model.conditioning.show(input_ids, is_image, states)
        return {}

    def looks_at(self, spans: Sequence[ImageSpan], length: int) -> list[tuple[int, int, str]]:
        """A token looks at the next picture (`visible_images`), and behind the last one the gated layers still change it."""
        starts = [0, *(span.end for span in spans)]
        found = [(start, span.end, span.image.key) for start, span in zip(starts, spans, strict=False)]
        return [*found, (starts[-1], length, "behind the last picture")] if spans else []

    def move(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        self.model.vision_model.to(device=device, dtype=dtype)
        self.model.perceiver.to(device=device, dtype=dtype)

    def move_projector(self, device: torch.device | str, dtype: torch.dtype) -> None:
        self.model.perceiver.to(device, dtype)
