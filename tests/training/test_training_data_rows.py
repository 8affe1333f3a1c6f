"""The strict door: what is no row is refused with its place and a way out; what is one comes through whole."""

import base64
import io
import json

import pytest
from PIL import Image

from training.data import RowError, RowFile
from training.data.files import open_records
from training.data.rows import check_row, is_supervised, make_row

YES = {"role": "assistant", "content": "Yes."}
IMAGE = {"type": "image"}


def user(*items) -> dict:
    return {"role": "user", "content": [{"type": "text", "text": item} if isinstance(item, str) else item for item in items]}


def refusal(value) -> str:
    with pytest.raises(RowError) as caught:
        check_row(value, "rows.jsonl, line 7")
    assert str(caught.value).startswith("rows.jsonl, line 7: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("messages", "images", "named"),
    [
        ([], [], "question and an answer"),
        ([YES], [], "before it stands nothing"),
        ([user("Q"), user("Q"), YES], [], "join them"),
        ([user("Q")], [], "no answer to it"),
        ([user("Q"), YES, user("Q")], [], "no answer to it"),
        ([user("Q"), YES, YES], [], "before it stands assistant"),
        ([user("Q"), YES, {"role": "system", "content": "Be brief."}, user("Q"), YES], [], "only the first"),
        ([{"role": "human", "content": "Q"}, YES], [], "Write 'user'"),
        ([user("Q"), {"role": "gpt", "content": "Yes."}], [], "Write 'assistant'"),
        ([user("Q"), {"role": "tool", "content": "4"}, YES], [], "role 'tool'"),
        ([{"content": "Q"}, YES], [], "role None"),
        ([{"from": "human", "value": "Q"}], [], "convert sharegpt"),
        ([user("Q"), {"role": "assistant", "content": None}], [], "content is None"),
        ([user("Q"), {"role": "assistant", "content": " \n"}], [], "is empty"),
        ([user("Q"), {"role": "assistant", "content": "a", "name": "x"}], [], "unknown keys ['name']"),
        ([user("Q"), {"role": "assistant", "content": "a", "weight": 0.5}], [], "weight 0.5"),
        ([user("Q"), {"role": "assistant", "content": "a", "train": "no"}], [], "train 'no'"),
        ([user("Q"), {"role": "assistant", "content": "a", "weight": 0}], [], "every one has weight 0"),
        ([user({"type": "text", "text": None}), YES], [], "a text is None"),
        ([user({"type": "input_text", "text": "Q"}), YES], [], "convert chat"),
        ([user({"type": "image_url", "image_url": {"url": "a"}}, "Q"), YES], [], "convert chat"),
        ([user({"type": "image", "image": "a.png"}, "Q"), YES], ["a.png"], "stands in 'images'"),
        ([user({"type": "video"}), YES], [], "type 'video'"),
        ([user("<image>\nQ"), YES], ["a.png"], "'<image>' is typed"),
        ([user("Q"), {"role": "assistant", "content": "A <img_token>."}], [], "'<img_token>' is typed"),
        ([user(IMAGE, IMAGE, "Q"), YES], ["a.png"], "2 image items in the messages but 1 pictures"),
        ([user("Q"), YES], ["a.png"], "0 image items in the messages but 1 pictures"),
        (
            [user("Q"), {"role": "assistant", "content": [IMAGE, {"type": "text", "text": "a"}]}],
            ["a.png"],
            "stand in questions",
        ),
        ([user("Q \ud83d"), YES], [], "half a character"),
        ([user(IMAGE, "Q"), YES], ["https://example.invalid/a.png"], "Download it"),
        ([user(IMAGE, "Q"), YES], [None], "a picture is None"),
        ([user(IMAGE, "Q"), YES], "a.png", "'images' is a list"),
    ],
)
def test_mistake_is_named(messages, images, named):
    assert named in refusal({"messages": messages, "images": images})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"id": "1", "image": "a.jpg", "conversations": []}, "llava"),
        ({"id": "1", "conversations": []}, "sharegpt"),
        ({"text": "Human: a\nAI: b", "task_type": "x_sft"}, "mplug_owl"),
        ({"instruction": "a", "context": "", "response": "b"}, "dolly"),
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca"),
        ({"image_id": "1", "question": "a", "answer": "b", "task": "c"}, "lrv"),
        ({"image_id": "1", "caption": "a"}, "cc_sbu_align"),
        ({"filename": "a", "questions": [], "answers": []}, "ocr_vqa"),
        ({"topic": "tea", "input": "..."}, "baize"),
    ],
)
def test_foreign_record_is_answered_with_the_command_that_converts_it(value, name):
    assert f"python -m training data convert {name} " in refusal(value)


def test_unknown_key_of_a_row_is_refused():
    assert "under 'images'" in refusal({"messages": [user("Q"), YES], "image": "a.png"})
    assert "under 'meta'" in refusal({"messages": [user("Q"), YES], "score": 1})


def test_answers_can_be_left_out_of_the_loss():
    for key, value in (("weight", 0), ("train", False), ("loss", False)):
        assert not is_supervised({**YES, key: value})
        assert is_supervised({**YES, key: 1 if key == "weight" else True})
        check_row({"messages": [user("Q"), {**YES, key: value}, user("Q"), YES]}, "row")


def write(path, lines: list[str], **options) -> RowFile:
    path.write_text("\n".join(lines), **{"encoding": "utf-8", **options})
    return RowFile(path)


def test_lines_end_at_line_feeds_alone(tmp_path):
    texts = [f"what{character}is it" for character in "\u2028\u2029\u0085"]
    rows = write(tmp_path / "rows.jsonl", [json.dumps(make_row([(text, "Red.")], []), ensure_ascii=False) for text in texts])
    assert [row["messages"][0]["content"][0]["text"] for row in rows] == texts


def test_byte_order_mark_and_windows_line_ends_and_empty_lines_are_read(tmp_path):
    path = tmp_path / "rows.JSONL"
    line = json.dumps(make_row([("Q", "A")], []))
    path.write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n\r\n{line}".encode())
    rows = RowFile(path)
    assert len(rows) == 2
    assert rows[1]["place"] == f"{path}, line 3"


def test_array_of_rows_is_read_and_its_mistakes_have_numbers(tmp_path):
    good = make_row([("Q", "A")], [])
    (tmp_path / "rows.json").write_text(json.dumps([good, good], indent=1))
    assert len(RowFile(tmp_path / "rows.json")) == 2
    (tmp_path / "rows.json").write_text(json.dumps([good, {"messages": []}], indent=1))
    line = (tmp_path / "rows.json").read_text().split('"messages": []')[0].count("\n")
    with pytest.raises(RowError, match=rf"line {line} \(row 2\): 'messages'"):
        RowFile(tmp_path / "rows.json")


def test_records_of_an_object_have_the_lines_at_which_they_begin(tmp_path):
    path = tmp_path / "records.json"
    path.write_text('\ufeff{"info": {"a": ["\\"]}"]},\n "list" :\n\n [ {"a":\n 1} ,\n 2\n]}', encoding="utf-8")
    assert [open_records(path, "list").place(n) for n in (0, 1)] == [f"{path}, line 4 (row 1)", f"{path}, line 6 (row 2)"]
    path.write_text('{\n\n"7": {"a": 1},\n"8":\n{}}', encoding="utf-8")
    records = open_records(path, is_by_id=True)
    assert list(records) == [{"id": "7", "a": 1}, {"id": "8"}]
    assert [records.place(n) for n in (0, 1)] == [f"{path}, line 3 (row 1)", f"{path}, line 5 (row 2)"]
    path.write_text("[ ]", encoding="utf-8")
    assert len(open_records(path)) == 0


@pytest.mark.parametrize("text", ["{", '{"messages": NaN}', "[" * 100_000, "\udcff"])
def test_line_that_is_no_json_is_refused(tmp_path, text):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(make_row([("Q", "A")], [])).encode() + b"\n" + text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RowError, match="line 2: (no JSON|not UTF-8)"):
        RowFile(path)


def test_parquet_and_saved_data_set_hold_the_same_rows(tmp_path):
    datasets = pytest.importorskip("datasets")
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    picture = {"path": None, "bytes": file.getvalue()}
    rows = [make_row([("Q", "A")], [picture]), make_row([("Q", "B")], [])]
    table = datasets.Dataset.from_list(rows)
    table.to_parquet(tmp_path / "rows.parquet")
    table.save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "rows.parquet", tmp_path / "saved"):
        read = RowFile(path)
        assert [row["images"] for row in read] == [[file.getvalue()], []]
        assert read[1]["messages"][1]["content"][0]["text"] == "B"


def test_pictures_come_as_paths_bytes_and_data_uris(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    row = make_row([("Q", "A")], ["a.png", {"path": "a.png", "bytes": None}, data, {"path": "", "bytes": data}, uri])
    path = tmp_path / "a.png"
    assert check_row(row, "row", tmp_path)["images"] == [path, path, data, data, uri]


def test_spreadsheet_is_answered_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "a.csv").write_text("image,question,answer\n")
    with pytest.raises(ValueError, match="convert table"):
        RowFile(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x1f\x8b\x08", "is compressed"),
        ('{"messages"'.encode("utf-16"), "is UTF-16"),
        (b'[\n{"messages": []}\n]', "rows of several lines"),
        (b'\xef\xbb\xbf{\n "messages": []\n}', "rows of several lines"),
    ],
)
def test_file_of_another_sort_is_refused_as_a_whole(tmp_path, content, reason):
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        RowFile(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("text", ['{"messages": [], "messages": []}', '{"messages": 1e999}'])
def test_json_that_python_alone_understands_is_refused(tmp_path, text):
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(RowError, match="line 1: no JSON .*(twice|too large)"):
        RowFile(tmp_path / "rows.jsonl")


def test_constant_in_an_array_is_named_with_its_line(tmp_path):
    (tmp_path / "rows.json").write_text('[\n{"a": "NaN \\" NaN"},\n{"a": NaN}]')
    with pytest.raises(ValueError, match="line 3: NaN is no JSON"):
        RowFile(tmp_path / "rows.json")


def test_folder_of_parquet_files_is_one_set(tmp_path):
    datasets = pytest.importorskip("datasets")
    for split, count in (("train-00000-of-00002", 2), ("train-00001-of-00002", 1)):
        rows = [make_row([("Q", f"A{n}")], []) for n in range(count)]
        (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "set" / "data" / f"{split}.parquet")
    assert len(RowFile(tmp_path / "set")) == 3
    (tmp_path / "set" / "data" / "train-00001-of-00002.parquet").rename(
        tmp_path / "set" / "data" / "test-00000-of-00001.parquet"
    )
    with pytest.raises(ValueError, match=r"splits \['test', 'train'\]\. Name one: .*test-\*\.parquet"):
        RowFile(tmp_path / "set")
    assert len(RowFile(tmp_path / "set" / "data" / "train-*.parquet")) == 2
