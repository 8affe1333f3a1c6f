"""Draws docs/webui-chat.png and docs/webui-panel.png anew, in a real text-generation-webui (see the plugin's README, "Tests"):

TEXTGEN_DIR=... TEXTGEN_PYTHON=... PYTHONPATH=.:tests python docs/make_webui_pictures.py

The chat is with the model that comes with the project; the panel is that of a model with SmolVLM's processor and sizes of pictures, so
that the prices are SmolVLM's own.
"""

import shutil
import tempfile
from pathlib import Path

import native_models
from playwright.sync_api import sync_playwright
from webui.driver import ROOT, Page, Server, browser, by_hand

DOCS = Path(__file__).parent
PICTURES = [ROOT / "demo" / "examples" / f"{name}.png" for name in ("four-shapes", "star-and-ring")]
SIZES = {"image_size": 384, "patch_size": 14}
SMOLVLM = {
    "config": {"vision_config": {"model_type": "smolvlm_vision", **native_models.CLIP, **SIZES}, "scale_factor": 3},
    "image": {
        "image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384},
    },
    "processor": {"processor_class": "SmolVLMProcessor", "image_seq_len": 81},
}  # fmt: skip
SETTINGS = {
    "do_sample": False,
    "preset": "Deterministic",
    "max_new_tokens": 24,
    "multimodal_vcla-language": "en",
    "dark_theme": False,
}


def write_smolvlm(folder: Path) -> Path:
    """A tiny model of noise that takes as many tokens for a picture as SmolVLM."""
    family = native_models.FAMILIES["smolvlm"]
    native_models.SPECIAL += [
        f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5) if max(row, column) > 2
    ]
    native_models.FAMILIES["smolvlm"] = {**family, **SMOLVLM, "config": {**family["config"], **SMOLVLM["config"]}}
    return native_models.write("smolvlm", folder)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright, browser(playwright) as chrome:
        smolvlm = write_smolvlm(Path(folder) / "SmolVLM")

        def prepare(root: Path) -> None:
            by_hand(root)
            shutil.copytree(smolvlm, root / "user_data" / "models" / smolvlm.name)

        with Server(Path(folder), ROOT / "demo" / "model", SETTINGS, ("--cpu",), prepare) as server:
            page = Page(chrome, server.url)
            page.page.set_viewport_size({"width": 1280, "height": 900})
            page.send("Which picture shows the red ring?", *PICTURES)
            page.page.locator("#multimodal_vcla_strip .vcla-sum").wait_for()
            page.page.locator("#chat .user-message").evaluate("message => message.scrollIntoView()")
            page.page.screenshot(path=DOCS / "webui-chat.png")
            assert server.request("/v1/internal/model/load", {"model_name": smolvlm.name})[0] == 200
            page.load()
            page.page.evaluate("scrollTo(0, 0)")
            page.page.locator("#multimodal_vcla_strip .vcla-more").click()
            page.page.locator("#multimodal_vcla_tiles label", has_text="whole only").click()
            page.page.locator("#multimodal_vcla figure", has_text="84 tokens").first.wait_for()
            page.page.locator("#multimodal_vcla.vcla-over").screenshot(path=DOCS / "webui-panel.png")


if __name__ == "__main__":
    main()
