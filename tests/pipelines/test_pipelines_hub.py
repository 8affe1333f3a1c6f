"""Names of models on the hub."""

from pathlib import Path

from huggingface_hub.utils import filter_repo_objects

from pipelines.hub import resolve_folder


def test_copies_of_the_weights_for_other_programs_are_left_on_the_hub(monkeypatch):
    files = [
        "config.json",
        "model.safetensors",
        "onnx/decoder.onnx",
        "onnx/decoder.onnx_data",
        "model-q4.gguf",
        "tokenizer.json",
    ]

    def download(name, *, ignore_patterns, revision):
        assert (name, revision) == ("some/model", "main")
        files[:] = filter_repo_objects(files, ignore_patterns=ignore_patterns)
        return "here"

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_folder("some/model", revision="main") == Path("here")
    assert files == ["config.json", "model.safetensors", "tokenizer.json"]
