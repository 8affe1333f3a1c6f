"""What text-generation-webui runs. Registers the two packages under fixed names and hands every hook on.

It is executed by location, and again whenever the interface is rebuilt, so nothing is kept here but the settings. Standard
library only: where the rest cannot be imported, `broken.py` says so and refuses pictures, and the web UI runs on.
"""

import importlib.util
import logging
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

params = {  # what each means: README.md, "Settings"
    "display_name": "Pictures",
    "is_tab": False,
    "model": "",
    "eyes": "",
    "pipeline": "",
    "vision_device": None,
    "vision_bits": None,
    "projector_device": None,
    "projector_bits": None,
    "add_all_images_to_prompt": True,
    "last_images": 1,
    "max_images": 32,
    "max_image_mb": 20,
    "max_image_megapixels": 40,
    "max_pixels": None,
    "use_tiles": None,
    "cache_mb": 256,
    "prefix_cache": True,
    "prefix_cache_text": False,
    "prefix_cache_mb": 2048,
    "language": "auto",
}


def _register(name, *folders):
    """Make the package in the first of `folders` that exists importable as `name`, without touching `sys.path`."""
    folder = next((folder for folder in folders if (folder / "__init__.py").is_file()), None)
    if folder is None:
        raise ImportError(f"{name}/ is missing: it belongs into {str(folders[0])!r}. Install the plugin again.")
    known = getattr(sys.modules.get(name), "__file__", None)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    elif known is None or Path(known).resolve().parent != folder.resolve():
        raise ImportError(
            f"another package named {name!r} is loaded already, from {known!r}; ours is {str(folder)!r}. Disable the extension "
            "that brings it, or uninstall it."
        )


def _load():
    try:
        _register("multimodal_vcla", HERE)
        _register("pipelines", HERE / "pipelines", HERE.parent.parent / "pipelines")
        from multimodal_vcla import hooks

        return hooks
    except Exception as error:
        logging.getLogger(__name__).exception("multimodal_vcla cannot be used: pictures are refused.")
        spec = importlib.util.spec_from_file_location("multimodal_vcla_broken", HERE / "broken.py")
        broken = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(broken)
        return broken.Hooks(error)


_hooks = _load()


def setup():
    _hooks.setup(params)


state_modifier = _hooks.state_modifier
input_modifier = _hooks.input_modifier
custom_generate_chat_prompt = _hooks.custom_generate_chat_prompt
custom_tokenized_length = _hooks.custom_tokenized_length
tokenizer_modifier = _hooks.tokenizer_modifier
logits_processor_modifier = _hooks.logits_processor_modifier
ui = _hooks.ui
custom_css = _hooks.custom_css
custom_js = _hooks.custom_js
