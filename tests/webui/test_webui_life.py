"""What happens to the plugin around the chat: ways to install it, restarts, several users, adapters, precisions, pipelines of
the former extension. Each with a web UI of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import RING, STAR, TOP_LEFT, Oracle, right, same
from .driver import ROOT, Page, Server, by_hand, textgen_python

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("place", ["user_data", "."])
def test_the_interface_can_be_restarted(tmp_path, model_folder, settings, oracle, pictures, chrome, place):
    prepare = lambda root: by_hand(root, place)  # noqa: E731
    with Server(tmp_path, model_folder, settings, ("--cpu",), prepare) as server:
        page = Page(chrome, server.url)
        first = oracle.check(page.send(TOP_LEFT, pictures[0]), (TOP_LEFT, pictures[:1]))
        page.tab("Session")
        starts = server.log.count("Running on local URL")
        page.page.get_by_role("button", name="Apply flags/extensions and restart").click()
        server.wait_for(lambda: server.log.count("Running on local URL") > starts)
        page.page.context.close()
        page = Page(chrome, server.url)
        assert page.page.locator("#multimodal_vcla").count() == 1
        oracle.check(page.send(STAR), (TOP_LEFT, pictures[:1]), first, (STAR, []))
        page.new_chat()
        oracle.check(page.send(TOP_LEFT, pictures[1]), (TOP_LEFT, pictures[1:2]))
        page.page.context.close()


def test_several_users(tmp_path, model_folder, settings, oracle, pictures, chrome):
    with Server(tmp_path, model_folder, settings, ("--cpu", "--multi-user")) as server:
        pages = [Page(chrome, server.url, has_chats=False) for _ in range(2)]
        for page, picture in zip(pages, pictures, strict=False):
            oracle.check(page.send(TOP_LEFT, picture), (TOP_LEFT, [picture]))
        for page, picture in zip(pages, pictures, strict=False):
            page.panel_says("In context: 1 picture", f"1. {picture.name}")
            assert page.page.locator("#multimodal_vcla_policy input:disabled").count() == 3
            page.page.context.close()
        assert not list((server.user_data / "logs").rglob("*.json")), "nothing is saved"


@pytest.mark.parametrize("flags", [("--system",), ("--link",), ()])
def test_install_py_installs_a_plugin_that_sees(tmp_path, model_folder, settings, oracle, pictures, chrome, flags):
    name = model_folder.name if model_folder.name != "model" else f"{model_folder.parent.name}-model"

    def install(*words):
        command = [sys.executable, str(ROOT / "install.py"), *words]
        subprocess.run(command, check=True, capture_output=True, timeout=600)

    def prepare(root):
        python = textgen_python(Path(os.environ["TEXTGEN_DIR"]))
        install("webui", str(root), "--enable", "--model", str(model_folder), "--python", python, *flags)
        assert (root / "user_data" / "models" / name).is_symlink()

    with Server(tmp_path, None, settings, ("--cpu", "--model", name), prepare, is_enabled=False) as server:
        page = Page(chrome, server.url)
        oracle.check(page.send(TOP_LEFT, pictures[0]), (TOP_LEFT, pictures[:1]))
        page.panel_says(model_folder.name)
        page.page.context.close()
    install("uninstall", str(server.root))
    assert not list(server.root.glob("**/extensions/multimodal_vcla*"))


def make_lora(folder: Path, oracle: Oracle) -> Path:
    """An adapter of the language model that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(oracle.model.text_model, config)
    adapted.save_pretrained(folder)
    adapted.unload()
    return folder


def test_an_adapter_can_be_put_on_and_off(tmp_path, model_folder, settings, oracle, pictures, chrome):
    from peft import PeftModel

    lora = make_lora(tmp_path / "changed", oracle)
    adapted = Oracle(model_folder)
    adapted.model.text_model = PeftModel.from_pretrained(adapted.model.text_model, lora).merge_and_unload()
    turns = [(TOP_LEFT, pictures[:1])]
    assert not same(adapted(*turns), oracle(*turns))

    def prepare(root):
        by_hand(root)
        shutil.copytree(lora, root / "user_data" / "loras" / "changed", dirs_exist_ok=True)

    with Server(tmp_path, model_folder, settings, ("--cpu",), prepare) as server:
        page = Page(chrome, server.url)
        oracle.check(page.send(TOP_LEFT, pictures[0]), *turns)
        page.tab("Model")
        page.page.get_by_text("See more options").click()
        page.page.get_by_label("LoRA(s)").locator("visible=true").first.click()
        page.page.get_by_role("option", name="changed").click()
        page.page.get_by_role("button", name="Apply LoRAs").click()
        page.page.get_by_text("Successfully applied the LoRAs").wait_for()
        page.tab("Chat")
        page.new_chat()
        assert same(page.send(TOP_LEFT, pictures[0]), adapted(*turns))
        assert server.request("/v1/internal/lora/unload", {})[0] == 200
        page.new_chat()
        oracle.check(page.send(TOP_LEFT, pictures[0]), *turns)
        page.page.context.close()


@pytest.mark.parametrize("bits", [8, 4])
def test_a_language_model_of_few_bits_sees(tmp_path, model_folder, settings, oracle, pictures, bits):
    """Stored in few bits: on a CPU the web UI takes no notice of --load-in-8bit and --load-in-4bit."""
    probe = [textgen_python(Path(os.environ["TEXTGEN_DIR"])), "-c", "import bitsandbytes"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("bitsandbytes is missing in the web UI's Python")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    small = shutil.copytree(model_folder, tmp_path / f"world-{bits}bit")
    quantised = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    AutoModelForCausalLM.from_pretrained(model_folder, quantization_config=quantised, device_map="cpu").save_pretrained(small)
    with Server(tmp_path, small, settings, ("--cpu",), has_page=False) as server:
        for picture in pictures[:3]:
            reply = ask(server, oracle, TOP_LEFT, picture)
            assert server.prompts[-1]["has_embeds"]
            right(reply, TOP_LEFT, [picture])


@pytest.mark.parametrize("flag", ["--load-in-8bit", "--load-in-4bit"])
def test_flags_for_few_bits_do_no_harm(tmp_path, model_folder, settings, oracle, pictures, flag):
    with Server(tmp_path, model_folder, settings, ("--cpu", flag), has_page=False) as server:
        oracle.check(ask(server, oracle, TOP_LEFT, pictures[0]), (TOP_LEFT, pictures[:1]))


def ask(server, oracle, text, *pictures) -> str:
    from .test_webui_api import chat, user

    status, reply = chat(server, [user(text, *pictures)], oracle)
    assert status == 200, reply
    return reply


def test_a_pipeline_of_the_former_extension_by_its_setting(tmp_path, model_folder, settings, oracle, pictures, chrome):
    """`multimodal_vcla-pipeline` names it; a wrong name is refused with the right ones."""
    blind = shutil.copytree(model_folder, tmp_path / "blind", ignore=shutil.ignore_patterns("vision"))
    width = json.loads((blind / "config.json").read_text())["hidden_size"]

    def prepare(root):
        by_hand(root)
        old = root / "user_data" / "extensions" / "multimodal_vcla" / "pipelines" / "tiny-old-pipeline"
        shutil.copytree(ROOT / "tests" / "old_pipelines" / "tiny-old-pipeline", old)
        code = (old / "tiny.py").read_text()
        (old / "tiny.py").write_text(code.replace("width = 64", f"width = {width}"))

    wrong = {**settings, "multimodal_vcla-pipeline": "tiny-old-65"}
    with Server(tmp_path, blind, wrong, ("--cpu",), prepare) as server:
        page = Page(chrome, server.url)
        assert not page.send(RING, *pictures[:2])
        (said,) = {toast for toast in page.toasts() if "tiny-old-65" in toast}
        assert "Available: 'visualcla', " in said and "'tiny-old-64', 'tiny-old-48'" in said
        page.page.context.close()
    shutil.rmtree(server.root)
    with Server(tmp_path, blind, {**settings, "multimodal_vcla-pipeline": "tiny-old-64"}, ("--cpu",), prepare) as server:
        page = Page(chrome, server.url)
        page.send(RING, *pictures[:2])
        seen = server.prompts[-1]
        assert page.toasts() == [] and seen["has_embeds"]
        page.panel_says("tiny-old-64 on cpu. In context: 2 pictures, 6 of")
        page.page.context.close()
