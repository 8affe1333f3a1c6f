"""Fixtures: the plugin as the web UI loads it, inside the stand-in, with the golden VisualCLA model loaded."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.visualcla.saving import save_model_folder

HERE = Path(__file__).parent
SCRIPT = HERE.parent.parent / "extensions" / "multimodal_vcla" / "script.py"


def load_script(path: Path = SCRIPT):
    """Execute script.py by its location, as the web UI does with `user_data/extensions/`."""
    spec = importlib.util.spec_from_file_location("user_ext_multimodal_vcla", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory, merged_model):
    """A web UI's models folder: "vcla" has eyes, "text" is the same language model without."""
    folder = tmp_path_factory.mktemp("models")
    save_model_folder(merged_model, merged_model.processor, folder / "vcla")
    save_model_folder(merged_model, merged_model.processor, folder / "text")
    for file in (folder / "text" / "vision").iterdir():
        file.unlink()
    (folder / "text" / "vision").rmdir()
    return folder


@pytest.fixture
def webui(models_folder, merged_model, tmp_path, monkeypatch):
    """The stand-in with the plugin in it: `.script`, `.hooks`, `.shared`, `.chat`, `.extensions`, `.web`."""
    for name in [name for name in sys.modules if name == "modules" or name.startswith("modules.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(HERE)
    import modules.chat
    import modules.extensions
    import modules.models
    import modules.shared
    import modules.web_search

    shared = modules.shared
    shared.model, shared.tokenizer = merged_model.text_model, merged_model.processor.tokenizer
    shared.model_name, shared.args.model_dir = "vcla", str(models_folder)
    shared.user_data_dir = tmp_path
    script = load_script()
    modules.extensions.loaded[:] = [(script, "multimodal_vcla")]
    script.setup()
    from multimodal_vcla import hooks, panel, vision

    vision.look_again()
    panel._last_prompts.clear()
    script.params["language"] = "en"
    yield SimpleNamespace(
        script=script,
        hooks=hooks,
        shared=shared,
        chat=modules.chat,
        extensions=modules.extensions,
        models=modules.models,
        web=modules.web_search,
    )
    vision.look_again()
    for name in ("generate", "_multimodal_vcla_wrapped", "last_prompt_token_count"):  # what the plugin put on the model
        vars(merged_model.text_model).pop(name, None)
    for name in [name for name in sys.modules if name == "modules" or name.startswith("modules.")]:
        del sys.modules[name]
