"""Our models in lmms-eval, where an environment with it and with this project is named: LMMS_PYTHON=/path/to/python.

pip install torch lmms-eval==0.7.3 'filelock<3.20' && pip install --no-deps .
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from demo import rows as demo_rows
from demo.cli import DEFAULT_MODEL
from training.evaluate import main, report

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = os.environ.get("LMMS_PYTHON")
pytestmark = pytest.mark.skipif(PYTHON is None, reason="LMMS_PYTHON names no environment with lmms-eval")


def lmms_eval(folder, *flags, **env):
    command = [PYTHON, "-m", "lmms_eval", "--model", "multimodal_vcla", "--model_args", f"model={DEFAULT_MODEL}", *flags]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "cache"), **env}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_gavie_is_asked_by_lmms_eval_and_read_by_us(tmp_path):
    demo_rows.write(tmp_path, 32, seed=5)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    rows = [row for row in rows if len(row["messages"]) == 2 and len(row["images"]) == 1][:4]
    asked = [{"image_id": row["images"][0], "question": row["messages"][0]["content"][-1]["text"]} for row in rows]
    (tmp_path / "evaluation_set.json").write_text(json.dumps(asked))
    tasks = ["--include_path", str(ROOT / "training/evaluate/lmms_tasks"), "--tasks", "gavie", "--batch_size", "4"]
    lmms_eval(tmp_path, *tasks, VCLA_IMAGES=str(tmp_path))
    flags = ["--predictions", str(tmp_path / "answers.jsonl"), "--output_dir", str(tmp_path / "out")]
    assert main(["gavie", str(tmp_path / "evaluation_set.json"), *flags]) == 0
    given = report.find_results([tmp_path / "out"])[0].answers
    assert [each.answer for each in given] == [row["messages"][1]["content"][0]["text"] for row in rows]


def test_owleval_is_asked_by_lmms_eval_and_shown_by_us(tmp_path):
    demo_rows.write(tmp_path, 64, seed=5)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    rows = [row for row in rows if len(row["messages"]) == 2 and len(row["images"]) == 1]
    questions = [
        {"image": row["images"][0], "question_id": n, "question": row["messages"][0]["content"][-1]["text"], "ability": "b"}
        for n, row in enumerate(rows)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in questions))
    tasks = ["--include_path", str(ROOT / "training/evaluate/lmms_tasks"), "--tasks", "owleval", "--batch_size", "8"]
    lmms_eval(tmp_path, *tasks, VCLA_IMAGES=str(tmp_path))
    given = {
        each["question_id"]: each["answer"] for each in map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines())
    }
    right = [given[n] == row["messages"][1]["content"][0]["text"] for n, row in enumerate(rows)]
    assert sum(right) >= 0.9 * len(right) > 9
    flags = ["--predictions", str(tmp_path / "answers.jsonl"), "--output_dir", str(tmp_path / "out")]
    assert main(["owleval", str(tmp_path / "questions.jsonl"), *flags]) == 0
    assert len(report.find_results([tmp_path / "out"])[0].answers) == len(rows)
