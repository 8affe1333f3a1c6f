"""Instructions written by a language model behind a server: what is asked, what its reply must be, what is spent."""

import json
from collections import Counter

import pytest
from openai_server import served
from PIL import Image

from training import judge
from training.__main__ import main
from training.data import RowFile
from training.data.instructions import KINDS, prompt, read_reply, usable
from training.data.rows import text_of

CAPTIONS = {
    "23": [{"caption": "red lamp on desk", "bbox": [12, 40, 33, 80]}, {"caption": "a desk", "bbox": [0, 0, 5, 6]}],
    "24.png": [{"caption": "Mayor Ada Moss opens the Elm Bridge in 1999."}],
}
POSITIVE = """Here you are.

1. Instruction:
Is the lamp on the desk {number}?
Answer:
Yes, it is.
Task:
Visual Entailment

2. Instruction: Describe it.
Answer: {long}
Task: image captioning.
"""
NEGATIVE = "**Instruction:** Why does the zebra sleep?\n**Reason:** There is no zebra.\n\n---\n\n**Instruction 2:** Look at it.\n**Reason:** So."


def writer(request) -> str:
    text = request["messages"][0]["content"]
    return POSITIVE.format(number=len(text), long="word " * 31) if "Each task" in text else NEGATIVE


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vg.json").write_text(json.dumps(CAPTIONS))
    (tmp_path / "pictures").mkdir()
    for name in ("23.jpg", "24.png"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / "pictures" / name)
    return tmp_path


def generate(folder, url: str, *flags: str) -> int:
    files = [
        "--captions",
        str(folder / "vg.json"),
        "--images",
        str(folder / "pictures"),
        "--output",
        str(folder / "rows.jsonl"),
    ]
    return main(["data", "generate", *files, "--server", url, *flags])


def test_rows_are_written_and_what_they_cost_is_said_first(folder, capsys):
    with served(writer) as server:
        assert generate(folder, server.url) == 2  # nobody can be asked
        assert server.requests == [] and "--yes" in capsys.readouterr().err
        assert generate(folder, server.url, "--yes", "--price", "10", "30") == 0
        out, err = capsys.readouterr()
        assert "8 requests to local" in err and "replies of at most 15,000" in err and "at the prices given" in err
        assert "2 entries left out: an answer of 30 words or more" in out
        assert "14 rows" in out and "56 + 24 tokens spent" in out
        assert len(server.requests) == 8
        rows = (folder / "rows.jsonl").read_bytes()
        assert generate(folder, server.url) == 0  # nothing is left to ask, so nobody has to agree
        assert len(server.requests) == 8 and (folder / "rows.jsonl").read_bytes() == rows
        assert generate(folder, server.url, "--kinds", "existent", "--pictures", "1") == 0
    rows = RowFile(folder / "rows.jsonl")
    assert [text_of(message) for message in rows[0]["messages"]] == ["Why does the zebra sleep?", "There is no zebra."]
    assert rows[0]["images"] == [folder / "pictures" / "23.jpg"]
    assert rows[0]["meta"] == {"task": "negative", "kind": "existent", "image_id": "23", "written_by": "local"}
    assert len(rows) == 2


def test_prompt_has_boxes_with_their_own_width_and_height():
    text = prompt(KINDS["nonexistent"], CAPTIONS["23"])
    assert "\nred lamp on desk X: 12 Y: 40 Width: 33 Height: 80\na desk X: 0 Y: 0 Width: 5 Height: 6\n" in text
    text = prompt(KINDS["knowledge"], CAPTIONS["24.png"])
    assert "\nMayor Ada Moss opens the Elm Bridge in 1999.\n" in text and "bounding box" not in text


def test_run_goes_on_with_what_is_lacking(folder, capsys, monkeypatch):
    monkeypatch.setattr(judge, "WAIT_S", 0.001)
    replies = iter(["I like lamps.", None])
    with served(lambda request: next(replies, "") or writer(request), failures=[500]) as server:
        assert generate(folder, server.url, "--yes") == 1
        error = capsys.readouterr().err
        assert "1 of 8 replies are lacking" in error and "not made of entries" in error
        assert generate(folder, server.url, "--yes") == 0
        assert len(server.requests) == 8 + 1 + 1  # one was refused, one was of no use
    assert len(RowFile(folder / "rows.jsonl")) == 14


def test_server_that_is_not_there_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(judge, "WAIT_S", 0.001)
    with served(writer) as server:
        url = server.url
    assert generate(folder, url, "--yes", "--server_model", "m") == 2
    lines = capsys.readouterr().err.splitlines()
    assert "failed 5 times" in lines[-1] and not (folder / "rows.jsonl").exists()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "not made of entries"),
        ("Instruction: a\nInstruction: b\nReason: c", "not made of entries"),
        ("Reason: a\nInstruction: b", "not made of entries"),
        ("Instruction: a\nReason:\n", "'Reason:' of the reply is empty"),
        ("Instruction:\n\nReason: a", "'Instruction:' of the reply is empty"),
        ("Instruction: a\nReason: b\n\nI hope that this helps!", "no part of an entry"),
    ],
)
def test_reply_of_another_form_is_refused(reply, reason):
    with pytest.raises(ValueError, match=reason):
        read_reply(KINDS["existent"], reply)


def test_reply_that_was_cut_off_is_refused(monkeypatch):
    reply = {"choices": [{"message": {"content": "Instruction: a"}, "finish_reason": "length"}]}
    monkeypatch.setattr(judge.Client, "_fetch", lambda *args: reply)
    client = judge.Client("http://127.0.0.1:1", "m")
    assert client.ask([], 5) == "Instruction: a"
    with pytest.raises(judge.ServerError, match="longer than 5 tokens"):
        client.ask([], 5, refuses_cut=True)


def test_entries_that_do_not_keep_to_the_request_are_counted():
    left_out: Counter[str] = Counter()
    entries = read_reply(KINDS["positive"], "<think>Instruction: x</think>\n" + POSITIVE.format(number=1, long="Red."))
    assert usable([*entries, entries[0], {**entries[1], "instruction": "b", "task": "cooking"}], left_out) == [
        ("Is the lamp on the desk 1?", "Yes, it is.", "Visual Entailment"),
        ("Describe it.", "Red.", "image captioning"),
    ]
    assert left_out == {"the same instruction twice": 1, "a task that is none of those asked for": 1}


@pytest.mark.parametrize(
    ("captions", "named"),
    [
        ([], "holds no captions by picture"),
        ({"23": []}, "'23': [] is no list of captions"),
        ({"23": [{"caption": " "}]}, "'23', caption 1"),
        ({"23": [{"caption": "a", "bbox": [1, 2, 3]}]}, "bbox is [1, 2, 3]"),
        ({"25": [{"caption": "a"}]}, "1 of 1 pictures are not in"),
    ],
)
def test_wrong_captions_are_one_line(folder, capsys, captions, named):
    (folder / "vg.json").write_text(json.dumps(captions))
    with served(writer) as server:
        assert generate(folder, server.url, "--yes") == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
