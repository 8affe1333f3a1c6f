"""lmms-eval's own `openai` model asks the web UI, and the plugin sees. LMMS_PYTHON names an environment with lmms-eval (docs/evaluation.md)."""

import json
import os
import subprocess

import pytest

from .conftest import ROOT, TOP_LEFT, right_answer, same
from .driver import Server

PYTHON = os.environ.get("LMMS_PYTHON")
pytestmark = pytest.mark.skipif(PYTHON is None, reason="LMMS_PYTHON names no environment with lmms-eval")


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_folder, settings):
    with Server(tmp_path_factory.mktemp("server"), model_folder, settings, ("--cpu",), has_page=False) as server:
        yield server


def test_lmms_eval_asks_about_pictures_and_is_answered(server, pictures, tmp_path):
    questions = [{"image": path.name, "question_id": n, "question": TOP_LEFT} for n, path in enumerate(pictures)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in questions))
    who = [
        "--model",
        "openai",
        "--model_args",
        f"model_version=demo,base_url={server.api}/v1,api_key=none,num_concurrent=1,max_retries=1",
    ]
    task = ["--include_path", str(ROOT / "training/evaluate/lmms_tasks"), "--tasks", "owleval"]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(tmp_path / "cache"),
        "NO_PROXY": "127.0.0.1",
    }
    environment["VCLA_IMAGES"] = str(pictures[0].parent)
    done = subprocess.run(
        [PYTHON, "-m", "lmms_eval", *who, *task], cwd=tmp_path, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    given = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [each["question_id"] for each in given] == list(range(len(pictures)))
    for each, picture in zip(given, pictures, strict=True):
        assert same(each["answer"], right_answer(TOP_LEFT, [picture])), given
