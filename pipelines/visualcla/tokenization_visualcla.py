"""VisualCLA's tokenizer: the tokens that a picture stands between and for. How it is opened is in `pipelines.tokenization`."""

from tokenizers import AddedToken

from ..tokenization import build_tokenizer, load_tokenizer

IMAGE_START, IMAGE_END, IMAGE_TOKEN = "<img>", "</img>", "<img_token>"


def add_image_tokens(tokenizer) -> int:
    """Give a text model's tokenizer VisualCLA's three image tokens; returns how many were new.

    White space around them is dropped, as in the released tokenizer, so that every way of writing a prompt gives the same ids.
    """
    tokens = [AddedToken(token, lstrip=True, rstrip=True, special=True) for token in (IMAGE_START, IMAGE_END, IMAGE_TOKEN)]
    return tokenizer.add_tokens(tokens, special_tokens=True)


__all__ = ["IMAGE_END", "IMAGE_START", "IMAGE_TOKEN", "add_image_tokens", "build_tokenizer", "load_tokenizer"]
