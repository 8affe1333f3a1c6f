"""The files that come with the plugin agree with what they were made from, and its README with its settings."""

import re
from pathlib import Path

import yaml

from pipelines.visualcla.chat import DEFAULT_GENERATION_CONFIG
from pipelines.visualcla.processing_visualcla import CHAT_TEMPLATE, plain_template

PLUGIN = Path(__file__).parent.parent.parent / "extensions" / "multimodal_vcla"


def test_instruction_template_is_the_familys():
    template = yaml.safe_load((PLUGIN / "instruction-templates" / "VisualCLA.yaml").read_text(encoding="utf-8"))
    assert template == {"instruction_template": plain_template(CHAT_TEMPLATE).rstrip("\n")}


def test_preset_is_the_familys():
    preset = yaml.safe_load((PLUGIN / "presets" / "VisualCLA.yaml").read_text(encoding="utf-8"))
    assert preset == {name: getattr(DEFAULT_GENERATION_CONFIG, name) for name in preset}
    assert {"temperature", "top_p", "top_k", "repetition_penalty", "no_repeat_ngram_size"} == set(preset)


def test_readme_names_every_setting_and_every_file():
    readme = (PLUGIN / "README.md").read_text(encoding="utf-8")
    script = (PLUGIN / "script.py").read_text(encoding="utf-8")
    settings = re.findall(r'^    "(\w+)": ', script[: script.index("def ")], re.MULTILINE)
    table = readme[readme.index("## Settings") : readme.index("## What to expect")]
    assert settings and all(f"`{name}`" in table for name in settings)
    assert all(f"`{file.name}`" in readme for file in PLUGIN.glob("*.py") if file.name != "__init__.py")
