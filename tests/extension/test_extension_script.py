"""What the web UI runs: loads anywhere, twice, and broken; and what it is then."""

import shutil
import sys
from types import ModuleType

import pytest
from webui_stub.plugin import SCRIPT, load_script

pytest_plugins = ["webui_stub.plugin"]
ROOT = SCRIPT.parent.parent.parent
OURS = ("multimodal_vcla", "pipelines")


@pytest.fixture
def fresh(monkeypatch):
    """As in a new process: none of our packages is imported. Afterwards all is as before."""
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]


def install(folder, with_pipelines=True):
    shutil.copytree(SCRIPT.parent, folder / "multimodal_vcla", ignore=shutil.ignore_patterns("__pycache__"))
    if with_pipelines:
        shutil.copytree(
            ROOT / "pipelines", folder / "multimodal_vcla" / "pipelines", ignore=shutil.ignore_patterns("__pycache__")
        )
    return folder / "multimodal_vcla" / "script.py"


def test_a_copy_uses_the_pipelines_inside_itself(webui, fresh, tmp_path):
    script = load_script(install(tmp_path))
    assert type(script._hooks) is ModuleType
    assert sys.modules["pipelines"].__file__ == str(tmp_path / "multimodal_vcla" / "pipelines" / "__init__.py")
    assert str(tmp_path) not in " ".join(sys.path)


def test_executing_it_again_keeps_the_modules_and_takes_the_new_settings(webui):
    again = load_script()
    assert again._hooks is webui.script._hooks and again.params is not webui.script.params
    again.setup()
    from multimodal_vcla import settings

    assert settings.params is again.params


PICTURE = {"metadata": {"user_0": {"attachments": [{"type": "image", "image_data": "data:,"}]}}, "internal": []}
REQUEST = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}


def holds_up(script, why):
    """A broken install: text passes, pictures are refused with the reason, nothing else raises."""
    script.setup()
    state = {"history": {"internal": []}}
    assert script.state_modifier(state) is state and script.input_modifier("x", state) == "x"
    assert script.custom_generate_chat_prompt("x", state, history={"internal": [], "metadata": {}}) is None
    assert script.custom_tokenized_length("<__media__>") is None
    assert script.tokenizer_modifier(state, "x", "ids", None) == ("x", "ids", None)
    assert script.logits_processor_modifier([], None) == [] and script.custom_css() == script.custom_js() == ""
    script.ui()
    for history in (PICTURE, REQUEST):
        with pytest.raises(Exception, match=why):
            script.custom_generate_chat_prompt("x", state, history=history)
    with pytest.raises(Exception, match=why):
        script.tokenizer_modifier({"image_attachments": [{}]}, "<__media__>", "ids", None)


def test_a_copy_without_pipelines_says_so_and_refuses_pictures(webui, fresh, tmp_path):
    script = load_script(install(tmp_path / "a" / "b", with_pipelines=False))
    holds_up(script, "pipelines/ is missing")


def test_a_foreign_package_of_the_same_name_is_named(webui, fresh, monkeypatch, tmp_path):
    foreign = ModuleType("pipelines")
    foreign.__file__ = str(tmp_path / "elsewhere" / "pipelines" / "__init__.py")
    monkeypatch.setitem(sys.modules, "pipelines", foreign)
    holds_up(load_script(), "another package named 'pipelines'.*elsewhere")


def test_a_missing_requirement_does_not_stop_the_web_ui(webui, fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    holds_up(load_script(), "PIL")


def test_setup_never_raises(webui, monkeypatch):
    from multimodal_vcla import panel

    monkeypatch.setitem(sys.modules, "modules.chat", None)
    webui.script.setup()
    assert panel.notices
