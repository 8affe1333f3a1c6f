"""The plugin with a family's `webui` folder: the prompt is the original's, for several pictures and over turns."""

import numpy as np
import parity_minigpt4
import parity_mplug_owl
import pytest
import torch
from conftest import GOLDEN as VISUALCLA
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines import load_model, minigpt4, mplug_owl
from pipelines.base import ImagePart
from pipelines.generation import ChatModel, message
from pipelines.images import load_image

pytest_plugins = ["webui_stub.plugin"]
GOLDENS = VISUALCLA.parent
MINI, OWL = GOLDENS / "minigpt4", GOLDENS / "mplug_owl"
PARITY = {"mplug_owl": parity_mplug_owl, "minigpt4": parity_minigpt4}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    mplug_owl.FAMILY.write(mplug_owl.FAMILY.read(OWL / "checkpoint"), folder / "mplug_owl")
    projection = MINI / "checkpoint" / "pretrained_minigpt4_7b.pth"
    minigpt4.FAMILY.write(
        minigpt4.FAMILY.read(projection, text_model=MINI / "vicuna_tiny"), folder / "minigpt4", dtype=torch.float32
    )
    return folder


@pytest.fixture(params=PARITY)
def family(request, webui, folders):
    """The web UI's own loader has loaded the folder's language model; it knows nothing of the rest."""
    from multimodal_vcla import vision

    folder = folders / request.param
    webui.shared.model = AutoModelForCausalLM.from_pretrained(folder)
    webui.shared.tokenizer = AutoTokenizer.from_pretrained(folder)
    webui.shared.model_name, webui.shared.args.model_dir = request.param, str(folders)
    vision.look_again()
    yield request.param
    webui.shared.model = None


def pictures(name):
    return sorted((GOLDENS / name / "images").iterdir())


def test_turns_in_the_web_ui_are_those_of_the_model_itself(webui, family, folders):
    template = webui.shared.tokenizer.chat_template
    state = webui.chat.new_state(instruction_template_str=template, chat_template_str=template)
    chat = ChatModel(*load_model(folders / family))
    first, second = pictures(family)
    turns = [
        ("What color is the boat?", [first]),
        ("How many windows?", []),
        ("Compare the first and the second picture.", [second, first]),
    ]
    messages, parts = [], []
    for question, files in turns:
        messages.append(message("user", question, len(files)))
        parts += [ImagePart.of(load_image(file)) for file in files]
        prepared = chat.prepare(messages, parts)
        theirs = webui.chat.one_turn(question, state, list(files))
        assert theirs.ids.tolist() == prepared.input_ids.tolist()
        torch.testing.assert_close(theirs.embeds.float(), prepared.prompt.inputs["inputs_embeds"].float(), atol=5e-5, rtol=0)
        with torch.no_grad():
            ours = chat.model(inputs_embeds=prepared.prompt.inputs["inputs_embeds"]).logits[:, -1]
            logits = webui.shared.model(inputs_embeds=theirs.embeds).logits[:, -1]
        torch.testing.assert_close(logits, ours, atol=3e-4, rtol=0)
        theirs.history["internal"][-1][1] = theirs.history["visible"][-1][1] = "The boat is red."
        state["history"] = theirs.history
        messages.append(message("assistant", "The boat is red."))


def test_the_originals_answer_is_given_to_two_pictures(webui, family):
    module = PARITY[family]
    arrays = np.load(GOLDENS / family / "expected.npz")
    template = webui.shared.tokenizer.chat_template
    state = webui.chat.new_state(instruction_template_str=template, chat_template_str=template)
    theirs = webui.chat.one_turn("Compare the first and the second picture.", state, pictures(family))
    with torch.no_grad():
        logits = webui.shared.model(inputs_embeds=theirs.embeds).logits[:, -1].numpy()
    np.testing.assert_allclose(logits, arrays["two.last_logits"], atol=module.LOGITS, rtol=0)
