loads = []
"""Functions to call when an idle model is asked for."""


def load_model_if_idle_unloaded():
    from . import shared

    if shared.model is None and loads:
        loads.pop()()
