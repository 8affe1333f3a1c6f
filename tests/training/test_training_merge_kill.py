"""A merge killed at any moment leaves nothing that looks finished, and the same command finishes the work."""

import io
import multiprocessing
import os
import random
import signal
import sys

import pytest
from merging import RELEASE, TEXT, VISION, contents, copy, run_merge

from training.merge.output_folder import OutputFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are forked and killed by signals"),
]

NUM_KILLS = 50
MODELS = [f"transformers.models.{name}" for name in ("llama.modeling_llama", "clip.modeling_clip", "auto.modeling_auto")]
"""Loaded once, before the processes are forked."""
SHARD_SIZE = "30KB"
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


def merge_until(output, kill_at, flags):
    """Merge in this process and die just before the given step on the output; returns how many there were."""
    steps = 0

    def audit(event, arguments):
        nonlocal steps
        if event in EVENTS and arguments and output.name in str(arguments[0]):
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    sys.stderr = io.StringIO()
    status = run_merge(output, "--max_shard_size", SHARD_SIZE, *flags)
    return status, steps


def child(output, kill_at, flags, results):
    results.put(merge_until(output, kill_at, flags))
    results.close()
    results.join_thread()


@pytest.fixture(scope="module")
def run():
    """Run a merge in a process of its own, which dies before step `kill_at`; returns (status, steps), or None when it died."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "merging",
            "training.merge.command",
            "training.merge.verify",
            "pipelines.visualcla",
            "peft",
            "peft.tuners.lora",
            *MODELS,
        ]
    )

    def start(output, kill_at=0, *flags):
        results = context.Queue()
        process = context.Process(target=child, args=(output, kill_at, flags, results))
        process.start()
        process.join()
        if process.exitcode == 0:
            return results.get()
        assert process.exitcode == -signal.SIGKILL
        return None

    return start


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """(folder's contents, number of steps) of a merge that nobody disturbed."""
    folder = tmp_path_factory.mktemp("kill") / "merged"
    status, steps = run(folder)
    assert status == 0 and steps > 60
    return contents(folder), steps


def test_killed_at_any_step_it_leaves_nothing_and_goes_on(run, whole, tmp_path):
    expected, steps = whole
    inputs = [contents(folder) for folder in (TEXT, VISION, RELEASE)]
    for number, step in enumerate([*sorted(random.Random(0).sample(range(1, steps), NUM_KILLS - 1)), steps]):
        output = tmp_path / f"{number}" / "merged"
        output.parent.mkdir()
        assert run(output, step) is None
        if output.exists():  # killed after its name was given: then it is whole
            assert contents(output) == expected
            continue
        kept = {path: path.stat().st_ino for path in output.parent.rglob("model-*.safetensors")}
        status, _ = run(output)
        assert status == 0 and contents(output) == expected and [path.name for path in output.parent.iterdir()] == ["merged"]
        names = {path.name: inode for path, inode in kept.items() if path.parent.name == "model"}
        assert {name: (output / name).stat().st_ino for name in names} == names
    assert [contents(folder) for folder in (TEXT, VISION, RELEASE)] == inputs


def test_killed_again_and_again_it_arrives(run, whole, tmp_path):
    """Every run gets a little further than the one before; small files are written anew by each."""
    expected, steps = whole
    output = tmp_path / "merged"
    for kill_at in range(20, steps, 20):
        if run(output, kill_at) is not None or output.exists():
            break
    assert contents(output) == expected


def test_killed_while_replacing_a_model_one_of_both_is_there(run, whole, tmp_path):
    expected, steps = whole
    old = tmp_path / "merged"
    copy(TEXT, old)
    before = contents(old)
    for step in range(steps - 6, steps + 8):
        result = run(old, step, "--force")
        if not old.exists():  # between the two renames: the next run brings the old one back before it goes on
            assert result is None and contents(tmp_path / ".merged.unfinished/replaced") == before
        else:
            assert contents(old) in (before, expected)
        if result is not None or (old.exists() and contents(old) == expected):
            break
    assert run(old, 0, "--force")[0] == 0 and contents(old) == expected


def test_another_recipe_reuses_nothing(run, whole, tmp_path):
    expected, steps = whole
    output = tmp_path / "merged"
    assert run(output, steps - 8) is None
    assert list((tmp_path / ".merged.unfinished/model").glob("model-*"))
    status, _ = run(output, 0, "--dtype", "float32")
    assert status == 0 and contents(output) != expected
    assert run_merge(tmp_path / "fresh", "--max_shard_size", SHARD_SIZE, "--dtype", "float32") == 0
    assert contents(tmp_path / "fresh") == contents(output)


def test_two_merges_of_one_folder_do_not_meet(tmp_path, capsys):
    with OutputFolder(tmp_path / "out", "recipe", [], False):
        assert run_merge(tmp_path / "out") == 2
    assert "Another process is making" in capsys.readouterr().err
