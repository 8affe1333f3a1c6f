"""An invented sample of every format: what it becomes, and that a wrong record is named with its place."""

import io
import json
import random
import tarfile

import pytest
from PIL import Image

from pipelines.images import load_image
from training.__main__ import main
from training.data import RowFile
from training.data.formats import FORMATS, Skipped
from training.data.formats.pools import DESCRIBE, WHY
from training.data.rows import content_items, make_row, text_of

LLAVA = {
    "id": "000000000001",
    "image": "000000000001.jpg",
    "conversations": [
        {"from": "human", "value": "What is on the plate?\n<image>"},
        {"from": "gpt", "value": "Two pears."},
        {"from": "human", "value": "Are they ripe?"},
        {"from": "gpt", "value": "They are green."},
    ],
}
AOKVQA = {
    "split": "val",
    "image_id": 17,
    "question": "What is the boy about to do?",
    "choices": ["swim", "sleep"],
    "correct_choice_idx": 0,
    "rationales": ["He wears goggles.", "He stands at a pool."],
}
OFFICIAL_OCR = {
    "0001": {"imageURL": "http://example.invalid/a.png", "split": 1, "questions": ["Who?"], "answers": ["A. Writer"]},
    "0002": {"imageURL": "http://example.invalid/b.png", "split": 3, "questions": ["Who?"], "answers": ["B. Writer"]},
}
KARPATHY = {"filepath": "val2014", "filename": "COCO_1.jpg", "split": "restval", "sentences": [{"raw": "Bowls of food."}]}
OWL_TEXT = "A SYSTEM LINE.\nHuman: <image>\nHuman: What stands on the shelf?\nAI: A blue jar.\nHuman: Is it open?\nAI: No."
BAIZE = "The conversation between human and AI assistant.\n[|Human|] Is tea hot?\n[|AI|] Usually.\n[|Human|] And\niced tea?\n[|AI|] Cold.\n[|Human|] "

# format, record, what is said in turn (None: one of a pool), pictures
SAMPLES = [
    ("llava", LLAVA, ["What is on the plate?", "Two pears.", "Are they ripe?", "They are green."], ["000000000001.jpg"]),
    ("llava_first", LLAVA, ["What is on the plate?", "Two pears."], ["000000000001.jpg"]),
    ("sharegpt", {"conversations": LLAVA["conversations"][2:]}, ["Are they ripe?", "They are green."], []),
    ("mplug_owl", {"image": ["a.jpg"], "text": OWL_TEXT, "task_type": "llava_sft"},
     ["A SYSTEM LINE.", "What stands on the shelf?", "A blue jar.", "Is it open?", "No."], ["a.jpg"]),
    ("coco_caption", {"image": "a.jpg", "caption": ["Bowls of food."], "image_id": "coco_9"}, [None, "Bowls of food."], ["a.jpg"]),
    ("coco_karpathy", KARPATHY, [None, "Bowls of food."], ["val2014/COCO_1.jpg"]),
    ("cc_sbu_align", {"image_id": "2", "caption": "A bench."}, [None, "A bench."], ["2.jpg"]),
    ("caption_shards", {**make_row([("", "A Bowl (of food).")], ["a.jpg"])}, ["", "a bowl of food"], ["a.jpg"]),
    ("aokvqa", AOKVQA, [None, "The answer is swim. Because He wears goggles. He stands at a pool."], ["val2017/000000000017.jpg"]),
    ("ocr_vqa", {"filename": "1.jpg", "questions": ["Who?", "A cookbook?"], "answers": ["A. Writer", "Yes"]},
     ["Who?", "A. Writer", "A cookbook?", "Yes"], ["1.jpg"]),
    ("vqa", {"image": "a.jpg", "question": "Colour?", "answer": ["red", "blue", "red"]}, ["Colour?", "red"], ["a.jpg"]),
    ("gqa", {"imageId": "5", "question": "Is it?", "answer": "yes", "fullAnswer": "Yes, it is."}, ["Is it?", "Yes, it is."], ["5.jpg"]),
    ("lrv", {"image_id": "9", "question": "A kettle?", "answer": "None.", "task": "negative"}, ["A kettle?", "None."], ["9.jpg"]),
    ("lrv", {"image_id": "c.png", "question": "X, Y?", "answer": "X:1 Y:2."}, ["X, Y?", "X:1 Y:2."], ["c.png"]),
    ("dolly", {"instruction": "Name it.", "context": "Oslo is it.", "response": "Oslo."}, ["Name it.\n\nOslo is it.", "Oslo."], []),
    ("alpaca", {"instruction": "Add.", "input": "", "output": "5"}, ["Add.", "5"], []),
    ("baize", {"topic": "tea", "input": BAIZE}, ["Is tea hot?", "Usually.", "And\niced tea?", "Cold."], []),
    ("table", {"image": "a.png; b.png", "question": "Differ?", "answer": "Yes."}, ["Differ?", "Yes."], ["a.png", "b.png"]),
    ("chat", {"messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "input_text", "text": "Q"}]},
        {"role": "assistant", "content": "A"}]}, ["Q", "A"], ["a.png"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "record", "said", "images"), SAMPLES, ids=[sample[0] for sample in SAMPLES])
def test_sample_becomes_the_row_it_says(name, record, said, images):
    row = FORMATS[name]().row(record, random.Random(0))
    texts = [text_of(message) for message in row["messages"]]
    assert len(texts) == len(said)
    assert all(text == wanted for text, wanted in zip(texts, said, strict=True) if wanted is not None)
    assert row["images"] == images
    items = [item["type"] for message in row["messages"] for item in content_items(message)]
    assert items.count("image") == len(images)


def test_every_format_has_a_sample():
    assert {sample[0] for sample in SAMPLES} == set(FORMATS)


def test_picture_stays_where_its_mark_stood():
    row = FORMATS["llava"]().row(LLAVA, random.Random(0))
    assert [item["type"] for item in row["messages"][0]["content"]] == ["text", "image"]


def test_questions_are_drawn_from_the_pools_and_options_named_every_second_time():
    asked = {
        text_of(FORMATS["cc_sbu_align"]().row({"image_id": "2", "caption": "A."}, random.Random(n))["messages"][0])
        for n in range(400)
    }
    assert asked <= set(DESCRIBE) and len(asked) > 40
    asked = [text_of(FORMATS["aokvqa"]().row(AOKVQA, random.Random(n))["messages"][0]) for n in range(200)]
    assert {text.removeprefix(AOKVQA["question"] + " ").partition("\n")[0] for text in asked} == set(WHY)
    assert 60 < sum(text.endswith("\nOptions: swim, sleep") for text in asked) < 140


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        ("sharegpt", {"conversations": [{"from": "gpt", "value": "a"}]}, "no question with an answer"),
        ("sharegpt", {"conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"},
                                        {"from": "gpt", "value": "c"}, {"from": "gpt", "value": "d"}]}, "take turns"),
        ("sharegpt", {"conversations": [{"from": "tool", "value": "a"}]}, "'tool'"),
        ("alpaca", {"instruction": "a", "input": "", "output": " "}, "no answer"),
        ("baize", {"input": "[|Human|] a [|AI|] b [|AI|] c"}, "exactly one answer"),
        ("mplug_owl", {"text": "S\nHuman: a"}, "no answer"),
    ],
)  # fmt: skip
def test_record_without_an_answer_gives_no_row(name, record, reason):
    with pytest.raises(Skipped, match=reason):
        FORMATS[name]().row(record, random.Random(0))


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("aokvqa", {**AOKVQA, "correct_choice_idx": -1}),
        ("aokvqa", {**AOKVQA, "correct_choice_idx": True}),
        ("aokvqa", {**AOKVQA, "choices": "swim"}),
        ("aokvqa", {**AOKVQA, "rationales": "He wears goggles."}),
        ("ocr_vqa", {"filename": "1.jpg", "questions": "Q", "answers": ["A"]}),
        ("ocr_vqa", {"filename": "1.jpg", "questions": ["Q"], "answers": {"A": 1}}),
        ("vqa", {"image": "a.jpg", "question": "Q", "answer": {"A": 1}}),
    ],
)
def test_record_that_would_be_misread_is_refused(name, record):
    with pytest.raises((TypeError, ValueError)) as caught:
        FORMATS[name]().row(record, random.Random(0))
    assert not isinstance(caught.value, Skipped)


def test_splits_are_kept_apart(tmp_path):
    (tmp_path / "ocr.json").write_text(json.dumps(OFFICIAL_OCR))
    for name in ("0001.png", "0002.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert convert(tmp_path, "ocr_vqa", "ocr.json", "--split", "train") == 0
    assert [row["images"] for row in RowFile(tmp_path / "rows.jsonl")] == [[tmp_path / "0001.png"]]
    with pytest.raises(Skipped, match="split 'train'"):
        FORMATS["coco_karpathy"](split="test").row(KARPATHY, random.Random(0))


def test_caption_shards_are_worded_as_the_first_stage_words_them(tmp_path, capsys):
    picture = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(picture, "JPEG")
    captions = {"000": "A Red *Square*; on  White!", "001": " ".join(f"w{n}" for n in range(60)), "002": "...", "003": ""}
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        for key, caption in captions.items():
            for ending, data in (("jpg", picture.getvalue()), ("json", json.dumps({"caption": caption, "url": "u"}).encode())):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    assert convert(tmp_path, "caption_shards", "*.tar") == 1
    error = capsys.readouterr()
    assert "00000.tar, 003: no caption" in error.err and "1 records give no row: a caption of punctuation alone" in error.out
    assert convert(tmp_path, "caption_shards", "*.tar", "--leave_out_bad") == 0
    rows = list(RowFile(tmp_path / "rows.jsonl"))
    assert [[text_of(message) for message in row["messages"]] for row in rows] == [
        ["", "a red square on white"],
        ["", " ".join(f"w{n}" for n in range(50))],
    ]
    assert load_image(rows[0]["images"][0]).size == (4, 4)


def convert(folder, name: str, file: str, *flags: str) -> int:
    return main(["data", "convert", name, "--file", str(folder / file), "--output", str(folder / "rows.jsonl"), *flags])


def test_typed_marks_are_broken_and_the_row_goes_through(tmp_path):
    record = {
        "conversations": [{"from": "human", "value": "What is <image> in HTML?"}, {"from": "gpt", "value": "No <img_token>."}]
    }
    (tmp_path / "s.json").write_text(json.dumps([record]))
    assert convert(tmp_path, "sharegpt", "s.json") == 0
    assert text_of(RowFile(tmp_path / "rows.jsonl")[0]["messages"][0]) == "What is < image> in HTML?"


@pytest.fixture
def folder(tmp_path):
    """Somebody's pictures and a table."""
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number * 80, 0, 0)).save(tmp_path / "pictures" / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_folder_and_table_become_rows(folder, delimiter, encoding):
    lines = [
        ["Image", "Question", "Answer"],
        ["0.png", '"这是什么\u2028？\nSay it."', "红色"],
        ["", "", ""],
        ["", "Hello?", "Hi."],
    ]
    (folder / "t.csv").write_bytes("\r\n".join(delimiter.join(line) for line in lines).encode(encoding))
    assert convert(folder, "table", "t.csv", "--images", str(folder / "pictures")) == 0
    first, second = RowFile(folder / "rows.jsonl")
    assert first["images"] == [folder / "pictures" / "0.png"]
    assert text_of(first["messages"][0]) == "这是什么\u2028？\nSay it."
    assert [text_of(message) for message in second["messages"]] == ["Hello?", "Hi."]


def test_table_without_the_columns_is_refused(folder, capsys):
    for head, named in (
        ("picture,words", "columns picture, words"),
        ("image,answer,answer", "several columns"),
        ("", "columns none"),
    ):
        (folder / "t.csv").write_text(head + "\n")
        assert convert(folder, "table", "t.csv") == 2
        assert named in capsys.readouterr().err


def test_sets_of_a_configuration_are_converted_by_name(folder, capsys):
    (folder / "filter_cap.json").write_text(json.dumps({"annotations": [{"image_id": "0", "caption": "Dark."}]}))
    (folder / "data.yaml").write_text("sets:\n  mine: {format: cc_sbu_align, file: filter_cap.json, images: pictures}\n")
    for index in range(3):
        (folder / "pictures" / f"{index}.png").rename(folder / "pictures" / f"{index}.jpg")
    flags = ["--config", str(folder / "data.yaml"), "--output", str(folder / "rows.jsonl")]
    assert main(["data", "convert", "mine", *flags]) == 0
    first = (folder / "rows.jsonl").read_bytes()
    assert main(["data", "convert", "mine", *flags]) == 0
    assert (folder / "rows.jsonl").read_bytes() == first
    assert json.loads(first)["images"] == ["pictures/0.jpg"]
    assert main(["data", "convert", "yours", *flags]) == 2
    assert "it has mine" in capsys.readouterr().err


def test_wrong_use_is_one_line(folder, capsys):
    for argv, named in (
        (["convert", "nonsense", "--output", "rows.jsonl"], "Unknown format 'nonsense'"),
        (["convert", "llava", "--output", "rows.jsonl"], "--file is missing"),
        (["convert", "llava", "--file", str(folder / "absent.json"), "--output", "rows.jsonl"], "is not a file"),
        (["convert", "llava", "--file", "x.json", "--output", "rows.json"], "a .jsonl file"),
    ):
        assert main(["data", *argv]) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"), [('{"1": 5}', "under '1' is '5', not a record"), ("[" * 100_000 + "]" * 100_000, "is not valid JSON")]
)
def test_records_by_id_that_are_none_are_one_line(folder, capsys, text, said):
    (folder / "gqa.json").write_text(text, encoding="utf-8")
    argv = ["--file", str(folder / "gqa.json"), "--output", str(folder / "rows.jsonl")]
    assert main(["data", "convert", "gqa", *argv]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
