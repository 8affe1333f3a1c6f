"""The plugin: what vLLM (entry point `vllm.general_plugins`) calls in each of its processes before it looks at a model.

A folder of one of this project's families is told by its files, as everywhere in the project; any other folder goes the way it went
before. Read with vLLM 0.32: `plugins/__init__.py`, `transformers_utils/config.py`, `renderers/registry.py`.
"""

import logging
from pathlib import Path

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from vllm import ModelRegistry
from vllm.renderers.registry import RENDERER_REGISTRY
from vllm.transformers_utils import config as vllm_config

from pipelines.json_files import read_json
from pipelines.registry import find_family, is_whole, load_prompt_side

logger = logging.getLogger(__name__)

ARCHITECTURE = "PicturesForCausalLM"
"""What vLLM knows the models as, whatever their family."""


FIXED_SIZE = ("clip_vision_model", "siglip_vision_model")


def register() -> None:
    """Teach vLLM the model, how its folder is read, and how its prompts are written. Safe to call again."""
    ModelRegistry.register_model(ARCHITECTURE, f"serving.vllm_model:{ARCHITECTURE}")
    vllm_config._CONFIG_FORMAT_TO_CONFIG_PARSER["hf"] = FolderParser  # its own register function warns of what is on purpose
    RENDERER_REGISTRY.renderers["hf"] = (__name__, "renderer")


class FolderParser(vllm_config.HFConfigParser):
    """Reads `config.json`; of a folder of ours, the configuration of language model and vision model together."""

    def parse(self, model, *args, **kwargs):
        if not _is_ours(model):
            return super().parse(model, *args, **kwargs)
        config = load_prompt_side(model).config
        text = config.text_config
        text.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[text.model_type]]
        config.architectures, config.dtype = [ARCHITECTURE], text.dtype
        return config.to_dict(), config


def renderer(config, tokenizer):
    """What writes prompts: ours for our models, else vLLM's own."""
    from vllm.renderers.hf import HfRenderer

    from .vllm_prompts import PictureRenderer

    is_ours = ARCHITECTURE in (config.model_config.hf_config.architectures or ())
    return (PictureRenderer if is_ours else HfRenderer)(config, tokenizer)


def _is_ours(model) -> bool:
    """Whether a folder is to be read by us: of one of our families, and not of those that vLLM itself has a class for.

    A LLaVA with a vision encoder of one picture size is ours in every layout, so that its prompts are; with another one (Pixtral) it is not.
    """
    folder = Path(model)
    if not folder.is_dir() or find_family(folder) in (None, "native"):
        return False
    vision = read_json(folder / "config.json").get("vision_config") or {}
    return not is_whole(folder) or vision.get("model_type") in FIXED_SIZE
