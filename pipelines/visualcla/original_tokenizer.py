"""The tokenizer files that the original VisualCLA code opens: those of transformers 4.30's sentencepiece `LlamaTokenizer`."""

import json
from pathlib import Path

from ..tokenization import load_tokenizer

_CONTROL_TOKENS = ("bos_token", "eos_token", "unk_token")


def original_tokenizer_files(folder: Path) -> dict[str, bytes]:
    """Name to content, made of any folder that holds a sentencepiece model.

    Raises:
        ValueError: there is no `tokenizer.model`, or it is not the one that the added tokens stand on.
    """
    if not (folder / "tokenizer.model").is_file():
        raise ValueError(
            f"{str(folder)!r} has no tokenizer.model, and the original VisualCLA code opens sentencepiece models only. Copy the "
            "tokenizer.model that tokenizer.json was made of into that folder, or ask for no format of the original: the layouts "
            "webui and transformers do without."
        )
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tokenizer = load_tokenizer(folder)
    own = {token: index for token, index in tokenizer.get_added_vocab().items() if index >= pieces.get_piece_size()}
    own = dict(sorted(own.items(), key=lambda item: item[1]))
    if list(own.values()) != list(range(pieces.get_piece_size(), len(tokenizer))):
        raise ValueError(
            f"{str(folder)!r}: its tokenizer.model has {pieces.get_piece_size()} pieces, but its added tokens have the ids "
            f"{list(own.values())}: they belong to different tokenizers. Copy the tokenizer.model that tokenizer.json was made of."
        )
    roles = {role: getattr(tokenizer, role) for role in (*_CONTROL_TOKENS, "pad_token") if getattr(tokenizer, role)}
    # Plain strings: transformers 4.30 then drops white space around these tokens, as the model was trained.
    special = {"additional_special_tokens": list(own), **roles}
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        **{role: _added_token(roles[role]) for role in _CONTROL_TOKENS if role in roles},
        "clean_up_tokenization_spaces": False,
        "model_max_length": tokenizer.model_max_length,
        "pad_token": None,
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
    }
    return {
        "tokenizer.model": (folder / "tokenizer.model").read_bytes(),
        "added_tokens.json": json.dumps(own, indent=2, ensure_ascii=False).encode(),
        "special_tokens_map.json": json.dumps(special, indent=2, ensure_ascii=False).encode(),
        "tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False).encode(),
    }


def _added_token(content: str) -> dict:
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": content, **flags}
