"""Tokenizers of checkpoints, with the ids they were trained with.

LLaMA's early descendants (VisualCLA, LLaVA, Vicuna) carry a sentencepiece model (`tokenizer.model`) and added tokens, and were trained
through transformers 4.30's slow `LlamaTokenizer`. Today's `LlamaTokenizer` gives other ids for every prompt that holds an added
token. The rule that gives the right ones:

* the text is split at the special tokens, and all white space on both sides of each of them is dropped;
* every piece is encoded by sentencepiece on its own, so each gets its own dummy prefix.

`build_tokenizer` writes that rule into a `tokenizers` object, so that a saved `tokenizer.json` is right for everybody who
opens it: the web UI, TRL, plain transformers.
"""

import logging
import os
import re
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import cached_file

from .json_files import read_json

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
"""One of them makes a tokenizer."""

ALL_FILES = (
    *TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
"""All that belong to one."""

_SPACE = "\u2581"  # sentencepiece's mark for a space
_MARK = "\uf8ff"  # private use: occurs in no text


def load_tokenizer(name_or_path: str | os.PathLike, **hub_kwargs) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, with the ids it was trained with.

    A `tokenizer.json` beside the checkpoint is taken as it is, whatever class its `tokenizer_config.json` names: transformers builds
    some classes (`LlamaTokenizer`) anew and leaves the file's own rule out. No code of the folder runs. A sentencepiece `tokenizer.model` without one is read by
    `build_tokenizer`.

    Args:
        name_or_path: folder or hub name.
        hub_kwargs: `revision`, `token`, `cache_dir`, `local_files_only` for hub names.

    Raises:
        FileNotFoundError: there is neither file.
        ValueError: the files are broken.
    """
    name = os.fspath(name_or_path)

    def find(file_name: str) -> str | None:
        return cached_file(name, file_name, _raise_exceptions_for_missing_entries=False, **hub_kwargs)

    if find("tokenizer.json"):
        return _open_tokenizer(name, hub_kwargs)
    vocab_file = find("tokenizer.model")
    if vocab_file is None:
        raise FileNotFoundError(
            f"{name!r} holds no tokenizer: neither 'tokenizer.json' nor 'tokenizer.model'. Copy the tokenizer files of the "
            "language model (for VisualCLA: of the release) into it."
        )
    for file_name in ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"):
        find(file_name)  # brings them beside the vocabulary when it comes from the hub
    return build_tokenizer(Path(vocab_file).parent)


def _open_tokenizer(name: str, hub_kwargs: dict) -> PreTrainedTokenizerBase:
    log = logging.getLogger("transformers.tokenization_utils_base")
    level = log.level
    log.setLevel(logging.ERROR)  # it remarks on the class, which is another on purpose
    try:
        return PreTrainedTokenizerFast.from_pretrained(name, trust_remote_code=False, **hub_kwargs)
    except Exception as error:  # a broken file fails anywhere, in exceptions of its own
        raise ValueError(
            f"The tokenizer of {name!r} is broken ({' '.join(str(error).split())[:200]}). Copy its files again."
        ) from error
    finally:
        log.setLevel(level)


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def plain_template(chat_template: str) -> str:
    """A chat template without `{% generation %}`, which transformers knows and other renderers, such as the web UI's, do not."""
    return re.sub(r"\{%-?\s*(end)?generation\s*-?%\}\n?", "", chat_template)


def build_tokenizer(folder: str | os.PathLike) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a release from its sentencepiece model and added tokens.

    Args:
        folder: holds `tokenizer.model`, and as far as present `added_tokens.json`, `special_tokens_map.json` and
            `tokenizer_config.json`.

    Returns:
        A tokenizer whose `save_pretrained` writes a `tokenizer.json` that gives the same ids everywhere.

    Raises:
        ValueError: an added token's id does not follow the vocabulary.

    Source: the rule was read off transformers 4.30.2 (Apache-2.0) and sentencepiece 0.1.99 (Apache-2.0) by their outputs.
    """
    import sentencepiece

    folder = Path(folder)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocab = {pieces.id_to_piece(index): index for index in range(pieces.get_piece_size())}
    settings = read_json(folder / "tokenizer_config.json")
    special = _roles(settings) | _roles(read_json(folder / "special_tokens_map.json"))
    bos, eos, unk = (special.setdefault(role, token) for role, token in _CONTROL_TOKENS.items())

    own_tokens = _added_tokens(folder, settings, vocab)
    control_tokens = [bos, eos, unk]
    pad = [special["pad_token"]] if special.get("pad_token") in vocab else []

    backend = Tokenizer(models.BPE(vocab, _merges(pieces, vocab), unk_token=unk, fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    backend.add_special_tokens(
        [
            AddedToken(token, lstrip=True, rstrip=True, normalized=False, special=True)
            for token in dict.fromkeys([unk, bos, eos, *own_tokens, *pad])
        ]
    )
    backend.post_processor = _post_processor(backend, bos, eos, settings)
    backend.decoder = _decoder(vocab, control_tokens, own_tokens)

    roles = {role: token for role, token in special.items() if backend.token_to_id(token) is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **roles,
        extra_special_tokens=[token for token in own_tokens if token not in roles.values()],
        clean_up_tokenization_spaces=False,
        padding_side="right",
        model_max_length=settings.get("model_max_length"),
    )


def _added_tokens(folder: Path, settings: dict, vocab: dict[str, int]) -> list[str]:
    """The added tokens in the order of their ids, which go on behind the vocabulary; those that repeat a piece are left out.

    They stand in `added_tokens.json`, or since transformers 4.34 in `added_tokens_decoder` of `tokenizer_config.json`.
    """
    decoder = settings.get("added_tokens_decoder") or {}
    try:
        added = {entry["content"]: int(index) for index, entry in decoder.items()} | read_json(folder / "added_tokens.json")
        ordered = sorted(added.items(), key=lambda item: item[1])
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(
            f"The added tokens of {str(folder)!r} cannot be read ({error!r}). Copy its tokenizer files again."
        ) from error
    own = [(token, index) for token, index in ordered if vocab.get(token) != index]
    for (token, index), expected in zip(own, range(len(vocab), len(vocab) + len(own)), strict=True):
        if index != expected:
            raise ValueError(
                f"{folder / 'added_tokens.json'}: {token!r} has the id {index}, but the vocabulary of {len(vocab)} pieces goes "
                f"on with {expected}. Does this file belong to another tokenizer.model?"
            )
    return [token for token, _ in own]


_CONTROL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def _merges(pieces, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Sentencepiece joins the pair whose joint piece scores best; `tokenizers` wants those pairs in that order."""
    ranked = []
    for piece, index in vocab.items():
        if pieces.is_control(index) or pieces.is_byte(index) or pieces.is_unknown(index):
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                ranked.append((-pieces.get_score(index), vocab[left], vocab[right], left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def _post_processor(backend: Tokenizer, bos: str, eos: str, settings: dict) -> processors.TemplateProcessing:
    first = f"{bos} " if settings.get("add_bos_token", True) else ""
    last = f" {eos}" if settings.get("add_eos_token", False) else ""
    return processors.TemplateProcessing(
        single=f"{first}$A{last}",
        pair=f"{first}$A{last} {first}$B{last}",
        special_tokens=[(token, backend.token_to_id(token)) for token in (bos, eos)],
    )


def _decoder(vocab: dict[str, int], control_tokens: list[str], own_tokens: list[str]) -> decoders.Decoder:
    """Sentencepiece's decoding, and transformers 4.30's spaces around special tokens that are not skipped.

    A byte piece in the ASCII range is a character by itself, but `ByteFallback` would join it to a run of bytes and lose it with
    the run when that run is no UTF-8. So those pieces are hidden from it behind a mark and put in their place afterwards. Then,
    once everything is one string: the last stretch of text between two added tokens loses its dummy prefix, and one space
    separates an added token from its neighbours.
    """
    control = "|".join(map(_escape, control_tokens))
    steps = [
        decoders.Replace(_SPACE, " "),
        decoders.Replace(Regex(r"\A<0x(?=[0-7][0-9A-F]>\z)"), f"{_MARK}<0x"),
        decoders.ByteFallback(),
        decoders.Fuse(),
        *[decoders.Replace(f"{_MARK}<0x{byte:02X}>", chr(byte)) for byte in range(128) if f"<0x{byte:02X}>" in vocab],
    ]
    if own_tokens:
        own = "|".join(map(_escape, own_tokens))
        steps += [
            decoders.Replace(Regex(rf"(?<=\A|{control}|{own}) (?!(?:(?!{own})[\s\S])*(?:{control}))"), ""),
            decoders.Replace(Regex(rf"(?<={own})(?!\z)|(?!\A)(?={own})(?<!{own})"), " "),
        ]
    else:
        steps.append(decoders.Replace(Regex(rf"(?<=\A|{control}) (?![\s\S]*(?:{control}))"), ""))
    return decoders.Sequence(steps)


def _escape(token: str) -> str:
    return "".join(char if char.isalnum() or char in "<>/_" else f"\\{char}" for char in token)


def _roles(settings: dict) -> dict[str, str]:
    """bos_token, eos_token, unk_token and pad_token, as far as they are set."""
    found = {role: settings.get(role) for role in (*_CONTROL_TOKENS, "pad_token")}
    return {role: token["content"] if isinstance(token, dict) else token for role, token in found.items() if token}
