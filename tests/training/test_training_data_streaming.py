"""Shards: every sample once an epoch, and a stream that was broken off goes on exactly as if it had not been."""

import io
import itertools
import json
import tarfile
from collections import Counter

import pytest
import torch
from PIL import Image

from training.__main__ import main
from training.data.mixture import Mixture
from training.data.rows import text_of
from training.data.shards import ShardRecords
from training.data.streaming import ShardStream, stateful_loader


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path):
    """4 shards of 12 samples: a picture with a caption as json or as text."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "JPEG")
    paths = []
    for shard in range(4):
        paths.append(tmp_path / f"{shard:05d}.tar")
        with tarfile.open(paths[-1], "w") as archive:
            for number in range(12):
                key, caption = f"{shard:02d}{number:03d}", f"caption {shard} {number}"
                add(archive, f"{key}.jpg", file.getvalue())
                if number % 2:
                    add(archive, f"{key}.txt", caption.encode())
                else:
                    add(archive, f"{key}.json", json.dumps({"caption": caption, "url": "http://example.invalid"}).encode())
    return paths


def answers(rows) -> list[str]:
    return [text_of(row["messages"][1]) for row in rows]


def test_every_sample_comes_once_an_epoch_and_shuffled(shards):
    given = answers(ShardStream(shards, 0, buffer_size=10, epochs=2))
    assert Counter(given) == {f"caption {shard} {number}": 2 for shard in range(4) for number in range(12)}
    first, second = given[:48], given[48:]
    assert len(set(first)) == 48
    assert first != second
    assert answers(ShardStream(shards, 0, buffer_size=10, epochs=1)) == first
    assert answers(ShardStream(shards, 1, buffer_size=10, epochs=1)) != first


def test_processes_share_the_shards(shards):
    given = [answers(ShardStream(shards, 0, 5, rank=rank, world_size=3, epochs=1)) for rank in range(3)]
    assert sorted(itertools.chain.from_iterable(given)) == sorted(answers(ShardStream(shards, 0, 5, epochs=1)))
    assert not set(given[0]) & set(given[1])


@pytest.mark.parametrize("taken", [0, 1, 7, 20, 47, 48, 49, 70, 95])
def test_stream_goes_on_exactly_where_it_was_broken_off(shards, taken):
    whole = answers(ShardStream(shards, 0, buffer_size=10, epochs=2))
    stream = ShardStream(shards, 0, buffer_size=10, epochs=2)
    rows = iter(stream)
    before = answers(next(rows) for _ in range(taken))
    state = json.loads(json.dumps(stream.state_dict()))
    again = ShardStream(shards, 0, buffer_size=10, epochs=2)
    again.load_state_dict(state)
    assert before + answers(again) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_resumes_with_what_it_had_given_out(shards, workers, tmp_path):
    def loader():
        rows = ShardStream(shards, 0, buffer_size=6, epochs=2)
        return stateful_loader(rows, batch_size=4, num_workers=workers, collate_fn=answers)

    whole = list(loader())
    first = loader()
    batches = iter(first)
    before = [next(batches) for _ in range(9)]
    torch.save(first.state_dict(), tmp_path / "position.pt")
    del batches
    second = loader()
    second.load_state_dict(torch.load(tmp_path / "position.pt", weights_only=True))
    assert before + list(second) == whole


def test_position_of_other_numbers_is_refused(shards):
    stream = ShardStream(shards, 0)
    next(iter(stream))
    other = ShardStream(shards, 0, world_size=2)
    other.load_state_dict(stream.state_dict())
    with pytest.raises(ValueError, match="saved by 1 readers .* now there are 2"):
        next(iter(other))


def test_bad_samples_and_shards_are_told_and_end_nothing(shards):
    with tarfile.open(shards[0], "w") as archive:
        add(archive, "a.txt", b"a caption without a picture")
        add(archive, "b.jpg", b"a picture without a caption")
        add(archive, "c.json", b"{")
    data = shards[1].read_bytes()
    shards[1].write_bytes(data[: len(data) // 2])
    rows = list(ShardStream(shards, 0, buffer_size=3, epochs=1))
    wrong = {row["place"]: row["error"] for row in rows if "error" in row}
    assert "no picture" in wrong[f"{shards[0]}, a"]
    assert "no caption" in wrong[f"{shards[0]}, b"]
    assert f"{shards[0]}, c" in wrong
    assert "rest of the shard" in wrong[str(shards[1])]
    assert sum("error" not in row for row in rows) > 24


def test_too_few_or_absent_shards_are_refused(shards, tmp_path):
    with pytest.raises(ValueError, match="4 shards for 5 processes"):
        ShardStream(shards, 0, world_size=5)
    with pytest.raises(FileNotFoundError, match="absent.tar"):
        ShardStream([tmp_path / "absent.tar"], 0)


def test_samples_of_shards_are_read_by_number(shards, tmp_path):
    records = ShardRecords(tmp_path / "*.tar")
    assert len(records) == 48
    assert records.place(13) == f"{shards[1]}, 01001"
    assert answers([records[13]]) == ["caption 1 1"]
    assert set(answers(records)) == set(answers(ShardStream(shards, 0, epochs=1)))


def test_shards_are_validated_previewed_and_counted(shards, tmp_path, capsys):
    pattern = str(tmp_path / "*.tar")
    assert main(["data", "validate", pattern, "--model", "demo/model"]) == 0
    assert "48 good rows with 48 pictures" in capsys.readouterr().out
    assert main(["data", "preview", pattern, "--model", "demo/model", "--rows", "1", "--first", "14"]) == 0
    out = capsys.readouterr().out
    assert f"{shards[1]}, 01001: " in out and "«caption 1 1»" in out
    assert main(["data", "stats", pattern, "--model", "demo/model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 48
    data = shards[1].read_bytes()
    shards[1].write_bytes(data[: len(data) // 2])
    with tarfile.open(shards[0], "w") as archive:
        add(archive, "a.txt", b"a caption without a picture")
    assert main(["data", "validate", pattern]) == 1
    error = capsys.readouterr().err
    assert f"{shards[0]}, a: no picture" in error and f"{shards[1]}: the rest of the shard cannot be read" in error
    assert main(["data", "validate", str(tmp_path / "none" / "*.tar")]) == 2


def test_mixture_takes_shards(shards, tmp_path):
    (tmp_path / "data.yaml").write_text("sets:\n  web: {file: '*.tar', sample: 5}\n")
    mixture = Mixture.open(tmp_path / "data.yaml", seed=0)
    assert len({text for text in answers(mixture[index] for index in range(len(mixture)))}) == 5
