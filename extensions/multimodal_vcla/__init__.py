"""The plugin: a vision model for the language model that is loaded in text-generation-webui. `script.py` is where it begins."""
