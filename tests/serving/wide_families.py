"""The tiny golden checkpoints with a language model whose heads are as wide as vLLM wants them on a CPU (32)."""

import copy
import sys
from pathlib import Path

import torch

from pipelines.registry import save_model
from training.merge import convert

sys.path.append(str(Path(__file__).resolve().parent.parent / "families"))

from contract import CASES as GOLDEN_CASES


def write_families(folder: Path, layout: str) -> list[Path]:
    """One folder for each family whose pictures are embeddings in the prompt, of random weights."""
    folders = []
    for case in GOLDEN_CASES:
        if case.family == "open_flamingo":
            continue
        model, processor = case.open()
        config = copy.deepcopy(model.config)
        text = config.text_config
        text.hidden_size, text.num_attention_heads, text.num_key_value_heads, text.head_dim = 64, 2, 2, 32
        text.initializer_range = config.initializer_range = 0.3
        torch.manual_seed(0)
        wide = type(model)(config).eval()
        wide.generation_config = model.generation_config
        made = folder / f"{case.name}-webui"
        save_model(wide, processor, made)
        if layout != "webui":
            converted = folder / f"{case.name}-{layout}"
            assert convert.main([str(made), str(converted), "--layout", layout]) == 0
            made = converted
        folders.append(made)
    return folders
