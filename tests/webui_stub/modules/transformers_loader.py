"""The web UI's choice of a class, as in `modules/transformers_loader.py`."""

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from . import shared


def load_tokenizer(model_name):
    return AutoTokenizer.from_pretrained(Path(f"{shared.args.model_dir}/{model_name}"))


def load_model_HF(model_name):
    LoaderClass = AutoModelForCausalLM
    params = {"low_cpu_mem_usage": True, "attn_implementation": "sdpa", "torch_dtype": "float32"}
    return LoaderClass.from_pretrained(Path(f"{shared.args.model_dir}/{model_name}"), **params)
