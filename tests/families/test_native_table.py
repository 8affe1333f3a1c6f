"""docs/native.md names every image-text-to-text family of transformers that is tried or refused, as the code has it."""

from pathlib import Path

import native_models

from pipelines.native import loading

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "native.md"


def table() -> str:
    """The table as the page must hold it; print it to renew the page."""
    tried = [f"| `{name}` | works |" for name in sorted(native_models.FAMILIES)]
    refused = [f"| `{name}` | refused: {reason} |" for name, reason in sorted(loading.REFUSED.items())]
    return "\n".join(["| `model_type` | |", "| --- | --- |", *tried, *refused])


def test_page_holds_the_table():
    assert table() in PAGE.read_text(encoding="utf-8")


def test_no_family_is_both_tried_and_refused():
    assert not set(native_models.FAMILIES) & set(loading.REFUSED)
    assert set(native_models.FAMILIES) <= set(loading.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
