import torch

from . import shared
from .extensions import apply_extensions


def encode(prompt, add_special_tokens=True, add_bos_token=True, truncation_length=None):
    if shared.tokenizer is None:
        raise ValueError("No tokenizer is loaded")
    ids = shared.tokenizer.encode(str(prompt), add_special_tokens=add_special_tokens)
    bos = shared.tokenizer.bos_token_id
    if bos is not None:
        if add_bos_token and ids[:1] != [bos]:
            ids = [bos, *ids]
        while ids[:2] == [bos, bos]:
            ids = ids[1:]
    ids = ids if truncation_length is None else ids[-truncation_length:]
    return torch.tensor([ids])


def get_encoded_length(prompt):
    length = apply_extensions("tokenized_length", prompt)
    return len(encode(prompt)[0]) if length is None else length


def get_max_prompt_length(state):
    return state["truncation_length"] - state["max_new_tokens"]
