"""Messages to what the model is given, in vLLM's front process: the family's own ids, and its pixels.

The ids are `pipelines.prompt.PromptEncoder`'s, as everywhere in the project, each picture already with all of its placeholders: its
exact length is known before anything is decoded. Modelled on vLLM 0.32's `renderers/hf.py` and `models/llava.py` (Apache-2.0).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from PIL import Image
from transformers import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.media import MediaWithBytes
from vllm.multimodal.parse import MultiModalDataParser
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ProcessorInputs,
    PromptReplacement,
)
from vllm.renderers.hf import HfRenderer
from vllm.tokenizers.hf import get_cached_tokenizer

from pipelines.base import ImagePart
from pipelines.fixed_length import PromptSide
from pipelines.generation import without_typed_marks
from pipelines.images import load_image
from pipelines.prompt import Prompt, PromptEncoder
from pipelines.registry import load_prompt_side


class PictureRenderer(HfRenderer):
    """Chat messages and completion prompts to ids."""

    def __init__(self, config, tokenizer):
        self.side = load_prompt_side(config.model_config.model)
        tokenizer = get_cached_tokenizer(self.side.processor.tokenizer)
        tokenizer.truncation_side = "left"  # as vLLM's own
        super().__init__(config, tokenizer)
        pipeline = self.side.pipeline
        self.encoder = PromptEncoder(
            self.tokenizer,
            pipeline,
            pipeline.adds_bos,
            lambda text: self.tokenizer.encode(text, add_special_tokens=False),
        )

    def render_messages(self, messages, params):
        return super().render_messages(self._plain(messages), self._own(params))

    async def render_messages_async(self, messages, params):
        return await super().render_messages_async(self._plain(messages), self._own(params))

    def _own(self, params):
        """The family's template where the request or the command line names no other."""
        template = params.chat_template or self.side.processor.chat_template
        return replace(params, chat_template=template, chat_template_content_format="openai")

    def _plain(self, messages) -> list[Any]:
        """What is typed stays text: no mark of it becomes a picture."""
        marks = [self.side.pipeline.image_mark]
        processor = self.side.processor
        if processor.tokenizer.convert_tokens_to_ids(processor.image_token) == processor.image_token_id:
            marks.append(processor.image_token)
        for mark in marks:
            messages = [without_typed_marks(message, mark) if message.get("content") else message for message in messages]
        return messages

    def _tokenize_prompt(self, prompt, params):
        mark = self.side.pipeline.image_mark
        num_images = prompt["prompt"].count(mark)
        if not num_images:
            return super()._tokenize_prompt(prompt, params)
        images = [ImagePart(str(number), (1, 1), _nothing_to_open) for number in range(num_images)]
        encoded = self.encoder.encode(Prompt.from_text(prompt["prompt"], images, mark))
        return self._build_tokens_prompt(encoded.input_ids, prompt)


def _nothing_to_open() -> Image.Image:
    raise RuntimeError("Of a picture that is being counted only its place is known.")


class PictureParser(MultiModalDataParser):
    """Pictures as the project opens them: upright, what is transparent on white, hostile files refused."""

    def _parse_image_data(self, data):
        if isinstance(data, list):
            data = [_opened(item) for item in data]
        return super()._parse_image_data(data)


def _opened(item: Any) -> Any:
    if not isinstance(item, MediaWithBytes):
        return item
    return MediaWithBytes(load_image(item.original_bytes, background="white"), item.original_bytes, item.io_config)


class PictureInfo(BaseProcessingInfo):
    @cached_property
    def side(self) -> PromptSide:
        return load_prompt_side(self.model_id)

    @property
    def placeholders(self) -> list[int]:
        """The ids that stand for one picture."""
        return self.side.pipeline.image_ids([(1, 1)], self.side.processor.tokenizer)[0]

    def get_hf_processor(self, **kwargs: object):
        return self.side.processor

    def get_data_parser(self) -> PictureParser:
        return PictureParser(expected_hidden_size=self._get_expected_hidden_size())

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {"image": len(self.placeholders)}


class DummyPictures(BaseDummyInputsBuilder[PictureInfo]):
    """For measuring memory before the first request."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return ""

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options) -> dict[str, Any]:
        return {"image": self._get_dummy_images(width=64, height=64, num_images=mm_counts.get("image", 0))}


class PictureProcessor(BaseMultiModalProcessor[PictureInfo]):
    """Pictures to pixels; where their placeholders stand."""

    def get_dummy_inputs(self, seq_len: int, mm_counts: Mapping[str, int], mm_options) -> ProcessorInputs:
        inputs = super().get_dummy_inputs(seq_len, mm_counts, mm_options)
        inputs.prompt = self.info.placeholders * mm_counts.get("image", 0)
        return inputs

    def _call_hf_processor(self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]) -> BatchFeature:
        return BatchFeature({"pixel_values": self.info.side.pipeline.pixel_values(hf_data["images"])})

    def _get_mm_fields_config(self, hf_inputs, hf_processor_mm_kwargs) -> Mapping[str, MultiModalFieldConfig]:
        return {"pixel_values": MultiModalFieldConfig.batched("image")}

    def _get_prompt_updates(self, mm_items, hf_processor_mm_kwargs, out_mm_kwargs) -> Sequence[PromptReplacement]:
        ids = self.info.placeholders
        return [PromptReplacement(modality="image", target=ids, replacement=ids)]
