"""The extensions that are switched on, in the order of `--extensions`."""

loaded: list = []
"""(module, name) pairs."""


def iterator():
    yield from loaded


def apply_extensions(kind, *args, **kwargs):
    names = {"tokenized_length": "custom_tokenized_length", "custom_generate_chat_prompt": "custom_generate_chat_prompt"}
    if kind in names:
        owners = [extension for extension, _ in loaded if hasattr(extension, names[kind])]
        return getattr(owners[0], names[kind])(*args, **kwargs) if owners else None
    hooks = {"input": "input_modifier", "state": "state_modifier"}
    for extension, _ in loaded:
        if kind in hooks and hasattr(extension, hooks[kind]):
            args = (getattr(extension, hooks[kind])(*args, **kwargs), *args[1:])
        elif kind == "tokenizer" and hasattr(extension, "tokenizer_modifier"):
            args = (args[0], *extension.tokenizer_modifier(*args))
        elif kind == "logits_processor" and hasattr(extension, "logits_processor_modifier"):
            extension.logits_processor_modifier(*args)
    return args[1:] if kind == "tokenizer" else args[0]
