loads = []
"""Functions to call when an idle model is asked for."""


def load_model_if_idle_unloaded():
    from . import shared

    if shared.model is None and loads:
        loads.pop()()


def transformers_loader(model_name):
    from .transformers_loader import load_model_HF

    return load_model_HF(model_name)


def load_model(model_name, loader=None):
    from . import shared
    from .transformers_loader import load_tokenizer

    shared.model_name, shared.args.loader = model_name, loader
    return transformers_loader(model_name), load_tokenizer(model_name)
