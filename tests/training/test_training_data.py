"""Rows from files and from generators: seeded, relative to their file, refused where they are none."""

import itertools
import json

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from training.data import RowStream, open_source

MESSAGES = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "Red."}]
ABOUT_ONE = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": "Red."},
]


def counting(seed: int):
    """Endless rows, later ones not longer than earlier ones."""
    for number in itertools.count():
        content = "x" * ((7 * number + seed) % 50)
        yield {"messages": [{"role": "user", "content": content}], "images": [], "number": number}


def write(path, *rows) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def test_image_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "a.png")
    rows = open_source(write(tmp_path / "rows.jsonl", {"messages": ABOUT_ONE, "images": ["pictures/a.png"]}), seed=0)
    assert len(rows) == 1
    assert rows[0] == {
        "messages": ABOUT_ONE,
        "images": [tmp_path / "pictures" / "a.png"],
        "place": f"{tmp_path / 'rows.jsonl'}, line 1",
    }


@pytest.mark.parametrize(
    ("line", "error", "named"),
    [
        ({"messages": ABOUT_ONE, "images": ["absent.png"]}, FileNotFoundError, "absent.png"),
        ({"instruction": "What is it?"}, ValueError, "line 1: a row is"),
        ([], ValueError, "line 1: a row is"),
    ],
)
def test_line_that_is_no_row_is_refused_by_its_number(tmp_path, line, error, named):
    with pytest.raises(error, match=named):
        open_source(write(tmp_path / "rows.jsonl", line), seed=0)


def test_empty_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        open_source(write(tmp_path / "rows.jsonl"), seed=0)


@pytest.mark.parametrize("source", ["absent.jsonl", "demo.world", "demo.world:absent", "absent_module:rows", ":rows"])
def test_source_that_is_not_there_is_refused(source):
    with pytest.raises((ValueError, FileNotFoundError), match="source"):
        open_source(source, seed=0)


def test_generator_gives_the_same_rows_for_the_same_seed():
    first, again, other = (
        [row["messages"] for row in itertools.islice(open_source("demo.world:text_rows", seed), 20)] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_sorting_keeps_every_row_and_makes_batches_of_like_length():
    def batches(sort_window: int) -> list[list[dict]]:
        rows = list(itertools.islice(RowStream(counting, 0, batch_size=8, sort_window=sort_window), 160))
        return [rows[i : i + 8] for i in range(0, 160, 8)]

    def padding(batch: list[dict]) -> int:
        lengths = [len(row["messages"][0]["content"]) for row in batch]
        return sum(max(lengths) - length for length in lengths)

    unsorted, in_windows = batches(1), batches(10)
    numbers = [row["number"] for batch in unsorted for row in batch]
    assert numbers == list(range(160))
    assert sorted(row["number"] for batch in in_windows for row in batch) == numbers
    assert sum(map(padding, in_windows)) < sum(map(padding, unsorted)) / 4


def test_worker_processes_share_the_rows_between_them():
    loader = DataLoader(RowStream(counting, 0), batch_size=None, num_workers=2)
    numbers = [row["number"] for row in itertools.islice(loader, 20)]
    assert sorted(numbers) == list(range(20))
