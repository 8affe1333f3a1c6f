"""The model in vLLM's workers: any language model that vLLM has, and a family's vision model beside it.

    pixel_values (N, 3, S, S) --the family's `image_embeds`--> (N, Q, Dt), and those stand in the prompt at the placeholders

The language model is vLLM's own: tensor and pipeline parallel, quantised, with LoRA, cached by prefix. The vision model is the
family's, on every card that embeds prompts: it is a twentieth of a 7B. Modelled on vLLM 0.32's `models/llava.py` (Apache-2.0).
"""

import re
from collections.abc import Iterable

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.distributed import get_pp_group
from vllm.model_executor.models.interfaces import MultiModalEmbeddings, SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.sequence import IntermediateTensors

from pipelines.registry import load_pipeline

from .vllm_prompts import DummyPictures, PictureInfo, PictureProcessor

VISION_PARTS = "vision_model|visual_resampler|image_projection_layer|vision_tower|multi_modal_projector"
"""What the families call their modules in composite checkpoints; `load_pipeline` reads these."""


@MULTIMODAL_REGISTRY.register_processor(PictureProcessor, info=PictureInfo, dummy_inputs=DummyPictures)
class PicturesForCausalLM(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    """A causal language model with pictures as embeddings in its prompts.

    Attributes:
        vision: the family's pipeline; None where no pictures are embedded.
    """

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_regex={  # one after the other; in the end every name is the language model's own, under its place here
            re.compile(rf"^(model\.)?({VISION_PARTS})\."): None,
            re.compile(r"^(text_model|language_model)\."): "",
            re.compile(r"^model\.(text_model|language_model)\."): "model.",
            re.compile(r"^"): "language_model.",
        }
    )

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        return None if modality == "image" else cls._refuse(modality)

    @staticmethod
    def _refuse(modality: str) -> None:
        raise ValueError(f"Only pictures and texts are taken, not {modality!r}.")

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        self.config = config = vllm_config.model_config.hf_config
        self.folder = vllm_config.model_config.model
        self.dtype, self.device = vllm_config.model_config.dtype, vllm_config.device_config.device
        self.configure_mm_token_handling(config.text_config.vocab_size, [config.image_token_id])
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config, hf_config=config.text_config, prefix=maybe_prefix(prefix, "language_model")
            )
        self.packed_modules_mapping = getattr(self.language_model, "packed_modules_mapping", {})
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors
        multimodal = vllm_config.model_config.multimodal_config
        self.has_pictures = multimodal.get_limit_per_prompt("image") > 0 and get_pp_group().is_first_rank
        self.vision = None

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        if self.has_pictures:
            self.vision = load_pipeline(self.folder, device=self.device, dtype=self.dtype)
        return AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)

    def embed_multimodal(self, pixel_values: torch.Tensor | None = None, **kwargs: object) -> MultiModalEmbeddings:
        """(N, Q, Dt) of (N, 3, S, S)."""
        return [] if pixel_values is None else self.vision.image_embeds(pixel_values)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> torch.Tensor | IntermediateTensors:
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        return self.language_model.compute_logits(hidden_states)

    def get_mm_mapping(self) -> MultiModelKeys:
        return MultiModelKeys.from_string_field(language_model="language_model")
