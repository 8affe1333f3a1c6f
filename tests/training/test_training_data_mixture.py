"""Mixtures: how often each set is seen, nothing held out is trained on, and the same rows for everybody."""

import json
from collections import Counter

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from training.data import open_source
from training.data.mixture import Mixture
from training.data.rows import make_row, text_of


def write(folder, name: str, rows: list[dict]) -> None:
    (folder / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """40 rows about 20 pictures, 10 rows of text."""
    for number in range(20):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(tmp_path / f"{number}.png")
    write(tmp_path, "pictures.jsonl", [make_row([(f"Q{n}", f"picture {n}")], [f"{n % 20}.png"]) for n in range(40)])
    write(tmp_path, "texts.jsonl", [make_row([(f"Q{n}", f"text {n}")], []) for n in range(10)])
    return tmp_path


def mixture(folder, sets: str, seed: int = 0, head: str = "") -> Mixture:
    (folder / "data.yaml").write_text(f"{head}\nsets:\n{sets}")
    return open_source(str(folder / "data.yaml"), seed)


BOTH = "  pictures: {file: pictures.jsonl%s}\n  texts: {file: texts.jsonl%s}\n"


def answers(data: Mixture, epoch: int = 0) -> list[str]:
    data.set_epoch(epoch)
    return [text_of(data[index]["messages"][1]) for index in range(len(data))]


def test_every_row_is_seen_once_an_epoch_in_an_order_of_its_own(folder):
    data = mixture(folder, BOTH % ("", ""))
    first, second = answers(data, 0), answers(data, 1)
    assert sorted(first) == sorted(second)
    assert len(set(first)) == len(first) == 50
    assert first != second
    assert first == answers(mixture(folder, BOTH % ("", "")), 0)
    assert first != answers(mixture(folder, BOTH % ("", ""), seed=1), 0)


def test_sample_takes_the_same_rows_every_epoch(folder):
    data = mixture(folder, BOTH % (", sample: 7", ""))
    first, second = answers(data, 0), answers(data, 1)
    assert len(first) == 17
    assert set(first) == set(second)


def test_epochs_of_a_set_are_its_own(folder):
    data = mixture(folder, BOTH % (", epochs: 0.5", ", epochs: 3"))
    first, second = answers(data, 0), answers(data, 1)
    assert Counter(word for word in first if word.startswith("text")) == {f"text {n}": 3 for n in range(10)}
    halves = [{word for word in epoch if word.startswith("picture")} for epoch in (first, second)]
    assert [len(half) for half in halves] == [20, 20]
    assert not halves[0] & halves[1], "no row is seen again before all are seen"


def test_weights_are_shares_of_the_rows(folder):
    data = mixture(folder, BOTH % (", weight: 3", ", weight: 2"))
    kinds = Counter(answer.split()[0] for answer in answers(data))
    assert kinds == {"picture": 30, "text": 20}
    assert "30 rows an epoch (60.0%), 0.75 of the set's own" in data.report[0]


def test_workers_do_not_change_the_rows(folder):
    data = mixture(folder, BOTH % ("", ""))
    loaded = [
        [text_of(row["messages"][1]) for row in DataLoader(data, batch_size=None, num_workers=workers)] for workers in (0, 2)
    ]
    assert loaded[0] == loaded[1] == answers(data)


def test_drawn_captions_are_a_function_of_seed_epoch_and_row(folder):
    write(folder, "captions.jsonl", [{"image": f"{n}.png", "caption": ["a", "b", "c", "d"]} for n in range(20)])
    sets = "  one: {format: coco_caption, file: captions.jsonl}\n"

    def drawn(seed: int, epoch: int) -> dict:
        data = mixture(folder, sets, seed)
        data.set_epoch(epoch)
        rows = [data[index] for index in range(len(data))]
        return {row["images"][0].name: [text_of(message) for message in row["messages"]] for row in rows}

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0) != drawn(0, 1)
    assert drawn(0, 0) != drawn(1, 0)


def test_held_out_pictures_are_in_no_row_of_training(folder):
    write(folder, "pairs.jsonl", [make_row([("Q", "pair")], [f"{n}.png", f"{(n * 7 + 1) % 20}.png"]) for n in range(20)])
    sets = BOTH % ("", "") + "  pairs: {file: pairs.jsonl}\n"
    data = mixture(folder, sets, head="held_out: 0.3")
    sides = []
    for side in (data, data.held_out):
        rows = [side[index] for index in range(len(side))]
        sides.append({picture.name for row in rows for picture in row["images"]})
        assert any(not row["images"] for row in rows)
    assert not sides[0] & sides[1]
    assert sides[0] and sides[1]
    assert len(sides[0] | sides[1]) == 20
    assert "with pictures of both sides left out" in data.report[2]


def test_row_that_goes_bad_later_says_so_and_ends_nothing(folder):
    data = mixture(folder, BOTH % ("", ""))
    (folder / "0.png").unlink()
    errors = [row for row in (data[index] for index in range(len(data))) if "error" in row]
    assert len(errors) == 2
    assert "0.png' is not there" in errors[0]["error"] and "pictures.jsonl, line " in errors[0]["place"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sets: {}", "names no data"),
        ("sets: {a: {file: pictures.jsonl}}\nshuffle: true", "unknown keys"),
        ("sets: {a: {file: pictures.jsonl, wieght: 2}}", "unknown keys"),
        ("sets: {a: {format: nonsense, file: pictures.jsonl}}", "Unknown format"),
        ("sets: {a: {file: pictures.jsonl, weight: 1}, b: {file: texts.jsonl}}", "every set needs one"),
        ("sets: {a: {file: pictures.jsonl, weight: -1}}", "weight -1"),
        ("sets: {a: {file: pictures.jsonl, sample: half}}", "sample 'half'"),
        ("sets: {a: {file: pictures.jsonl}}\nheld_out: 2", "held_out is 2"),
        ("sets: {a: {file: wrong.jsonl}}", "1 of 2 records of 'a' are wrong"),
    ],
)
def test_mistake_in_a_configuration_is_named(folder, text, named):
    write(folder, "wrong.jsonl", [make_row([("Q", "A")], []), {"messages": []}])
    (folder / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=named):
        Mixture.open(folder / "data.yaml", 0)


def test_bad_records_can_be_allowed(folder):
    write(folder, "wrong.jsonl", [make_row([("Q", "A")], []), {"messages": []}])
    assert len(mixture(folder, "  a: {file: wrong.jsonl}\n", head="leave_out_bad: 0.5")) == 1
