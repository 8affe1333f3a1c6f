"""`python -m demo ask` as a person uses it: the original's answers, mistakes in one line, a conversation that is never lost."""

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import GOLDEN, IMAGES, golden_json, load_golden
from PIL import Image

from demo import ask
from demo.__main__ import VERBS
from demo.__main__ import main as demo_main
from demo.cli import DEFAULT_MODEL
from pipelines.generation import ChatModel

MERGED = GOLDEN / "merged/visualcla-tiny-merged"
GREEDY_FLAGS = ["--temperature", "0", "--max_new_tokens", "24"]
UNMERGED_FLAGS = [
    f"--lora_model={GOLDEN / 'release/visualcla-tiny'}",
    f"--text_model={GOLDEN / 'base/text_model'}",
    f"--vision_model={GOLDEN / 'base/vision_model'}",
]
SCENE = str(GOLDEN / "images" / IMAGES[0])


def opaque(image: Path, folder: Path) -> Path:
    """As the original takes a picture: what is transparent shows its hidden colour."""
    Image.open(image).convert("RGB").save(folder / "opaque.png")
    return folder / "opaque.png"


def demo(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "demo", *map(str, arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "HF_HUB_OFFLINE": "1"}
    root = Path(__file__).parent.parent.parent
    return subprocess.run(command, input=stdin, capture_output=True, text=True, encoding="utf-8", cwd=root, env=environment)


@pytest.mark.parametrize(
    ("variant", "flags"),
    [("merged", ["--model", str(MERGED)]), ("unmerged_fp32", UNMERGED_FLAGS)],
    ids=["merged", "unmerged"],
)
@pytest.mark.parametrize("case", ["single_0", "single_1", "single_2"])
def test_prints_the_originals_reply_for_each_golden_picture(variant, flags, case, tmp_path, capsys):
    recorded = golden_json("generation")[variant][case]
    image = opaque(GOLDEN / "images" / recorded["image"], tmp_path)
    assert demo_main(["ask", "--image", str(image), *flags, *GREEDY_FLAGS, recorded["text"]]) == 0
    assert capsys.readouterr().out == recorded["response"] + "\n"


def test_transparent_picture_is_asked_about_as_a_person_sees_it(tmp_path, capsys):
    recorded = golden_json("generation")["merged"]["single_1"]
    image = GOLDEN / "images" / recorded["image"]
    transparent = Image.open(image)
    assert transparent.mode == "RGBA"
    Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent).save(tmp_path / "seen.png")
    answers = []
    for file in (image, tmp_path / "seen.png"):
        assert demo_main(["ask", "--image", str(file), "--model", str(MERGED), *GREEDY_FLAGS, recorded["text"]]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != recorded["response"] + "\n"


def test_runs_from_the_shell_with_the_originals_flags():
    recorded = golden_json("generation")["merged"]["single_0"]
    run = demo("ask", "--visualcla_model", MERGED, "--image_file", SCENE, "--only_cpu", *GREEDY_FLAGS, recorded["text"])
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == recorded["response"]


def test_a_seed_makes_sampled_answers_repeatable(capsys):
    flags = ["--model", str(MERGED), "--image", SCENE, "--max_new_tokens", "12", "what"]
    answers = []
    for seed in ("1", "1", "2"):
        assert ask.main(["--seed", seed, *flags]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != answers[2]


@pytest.fixture
def scripted(monkeypatch, capsys):
    """Feed lines to the terminal conversation with the golden model and return what it printed."""
    model = load_golden("merged")
    chat = ChatModel(model, model.processor)

    def run(*lines: str, images=(SCENE,)) -> tuple[list[str], str]:
        remaining = iter(lines)

        def answer_prompt(prompt=""):
            try:
                return next(remaining)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", answer_prompt)
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
        from conftest import GREEDY

        ask.converse(chat, GREEDY, list(images))
        captured = capsys.readouterr()
        return captured.out.replace(ask.USAGE, "").strip().splitlines(), captured.err

    return run


def test_conversation_gives_the_recorded_answers_of_three_turns(scripted):
    recorded = golden_json("generation")["merged"]
    lines, _ = scripted(*[recorded[f"turn_{turn}"]["text"] for turn in range(3)], "exit")
    assert lines == [recorded[f"turn_{turn}"]["response"] for turn in range(3)]


def test_clear_and_change_image_begin_anew(scripted, tmp_path):
    recorded = golden_json("generation")["merged"]
    first, other = recorded["single_0"], recorded["single_1"]
    image = opaque(GOLDEN / "images" / other["image"], tmp_path)
    lines, _ = scripted(first["text"], "clear", first["text"], f"change image:{image}", other["text"])
    assert lines == [first["response"], "A new conversation.", first["response"], other["response"]]


@pytest.mark.slow
def test_questions_of_a_pipe_are_answered_one_by_one_and_nothing_else_is_printed():
    recorded = golden_json("generation")["merged"]
    texts = [recorded[f"turn_{turn}"]["text"] for turn in range(2)]
    command = ("ask", "--visualcla_model", MERGED, "--image", SCENE, "--only_cpu", "--json", *GREEDY_FLAGS)
    run = demo(*command, stdin="\n\n".join([*texts, ""]))
    assert run.stderr == ""
    told = [json.loads(line) for line in run.stdout.splitlines()]
    assert [each["question"] for each in told] == texts
    assert [each["answer"] for each in told] == [recorded[f"turn_{turn}"]["response"] for turn in range(2)]
    assert [each["images"] for each in told] == [[SCENE], []]


def test_a_wrong_picture_is_told_and_the_conversation_goes_on(scripted):
    recorded = golden_json("generation")["merged"]
    lines, errors = scripted(recorded["turn_0"]["text"], "add image:/no/such.png", recorded["turn_1"]["text"])
    assert lines == [recorded["turn_0"]["response"], recorded["turn_1"]["response"]]
    assert errors.startswith("error: ") and "/no/such.png" in errors


MISTAKES = {
    "a broken picture": (["--image", str(GOLDEN / "README.md"), "what"], "README.md"),
    "a missing picture": (["--image", "/no/such.png", "what"], "/no/such.png"),
    "a folder that is no checkpoint": (["--model", str(GOLDEN), "what"], "is no model of a known family"),
    "a folder that is not there": (["--model", "/no/such", "what"], "is not a folder"),
    "a release without its bases": (
        ["--model", str(GOLDEN / "release/visualcla-tiny"), "what"],
        "--text_model, --vision_model",
    ),
    "bases without a release": ([UNMERGED_FLAGS[1], "what"], "belong together"),
    "bases under a whole model": (
        ["--model", str(DEFAULT_MODEL), "--text_model", str(DEFAULT_MODEL), "what"],
        "is a whole model",
    ),
    "an unknown flag": (["--colour", "what"], "unrecognized arguments: --colour"),
    "both quantisations": (["--load_in_8bit", "--load_in_4bit", "what"], "not allowed with argument"),
}


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_and_exit_status_2(arguments, expected, capsys):
    try:
        status = ask.main(arguments)
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert expected in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_more_memory_than_there_is_is_refused_before_loading(monkeypatch, capsys):
    monkeypatch.setattr("pipelines.memory.available_bytes", lambda device: 10_000)
    monkeypatch.setattr("pipelines.load_model", lambda *a, **k: pytest.fail("began to load"))
    assert ask.main(["--model", str(MERGED), "what"]) == 2
    assert "Loading in 32 bits takes about 0.0 GiB, but only 0.0 GiB are free on cpu." in capsys.readouterr().err


def test_unknown_verb(capsys):
    assert demo_main(["sing"]) == 2
    assert capsys.readouterr().err == f"python -m demo: unknown verb 'sing'. Available: {', '.join(VERBS)}.\n"


def test_help_names_the_verbs(capsys):
    assert demo_main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in ("page", "ask", "score"))


@pytest.fixture
def piped(monkeypatch):
    """Feed a pipe to `demo ask` with a model that answers with the question; a question that is "no" fails."""

    def run(text: str, *flags: str) -> int:
        def answer(chat, config, turns, images, question, as_json=False):
            if question == "no":
                raise ValueError("not this one")
            print(question)
            return ask.Turn(question, images, question)

        monkeypatch.setattr(ask, "load_chat", lambda args: None)
        monkeypatch.setattr(ask, "generation_config", lambda args, chat: None)
        monkeypatch.setattr(ask, "answer", answer)
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return ask.main(list(flags))

    return run


@pytest.mark.parametrize(
    ("text", "status"),
    [("a\nb\n", 0), ("", 0), ("a\nno\nb\n", 1), ("add image:/no/such.png\na\nb\n", 1), ("a\nno\nexit\nb\n", 1)],
)
def test_a_pipe_whose_question_was_not_answered_is_no_success(piped, capsys, text, status):
    assert piped(text) == status
    captured = capsys.readouterr()
    assert captured.out.split() == [word for word in text.partition("exit")[0].split() if len(word) == 1]
    assert captured.err.count("error: ") == status


def test_a_reader_that_has_gone_ends_the_pipe():
    run = f"{shlex.quote(sys.executable)} -m demo ask --only_cpu --temperature 0 --max_new_tokens 2"
    command = f"({run}; echo status $? >&2) | true"
    done = subprocess.run(
        ["sh", "-c", command], cwd=Path(__file__).parent.parent.parent, input="Hello\n" * 5, capture_output=True, text=True
    )
    assert done.stderr == "status 1\n"
