"""Judges: a language model behind a server (GAVIE, examiner), and people with a page."""

import json
import re

import pytest
from chat_page_driver import chromium
from openai_server import served

from training.evaluate import main, report

CAPTIONS = {"23": [{"caption": "red lamp on desk", "bbox": [12, 40, 33, 80]}, {"caption": "a desk", "bbox": [0, 0, 5, 6]}]}
QUESTIONS = [{"image_id": "23", "question": "Is there a lamp?"}, {"image_id": "23", "question": "Is there a zebra?"}]


@pytest.fixture
def answered(tmp_path):
    """A folder with the answers of two models to two questions of GAVIE."""
    (tmp_path / "evaluation_set.json").write_text(json.dumps(QUESTIONS))
    (tmp_path / "vg.json").write_text(json.dumps(CAPTIONS))
    for name, second in (("honest", "No."), ("eager", "Yes, a zebra.")):
        answers = [{"question_id": "1", "answer": "Yes."}, {"question_id": "2", "answer": second}]
        (tmp_path / f"{name}.json").write_text(json.dumps(answers))
        flags = ["--predictions", str(tmp_path / f"{name}.json"), "--name", name, "--output_dir", str(tmp_path / "answers")]
        assert main(["gavie", str(tmp_path / "evaluation_set.json"), *flags]) == 0
    return tmp_path


def strict(request):
    """A judge that believes in no zebra."""
    prompt = request["messages"][0]["content"]
    given = re.findall(r"^Answer(\d+): (.*)$", prompt, flags=re.MULTILINE)
    scores = "\n".join(f"score of the answer{number}: {2 if 'zebra' in text else 9}\nreason: so" for number, text in given)
    return f"Relevancy:\n{scores.replace(': 2', ': 10')}\n\nAccuracy:\n{scores}"


def judge(folder, server, *flags):
    arguments = ["--annotations", str(folder / "vg.json"), "--server", server.url, "--output_dir", str(folder / "judged")]
    return main(["judge", str(folder / "answers"), *arguments, *flags])


def test_gavie_scores_models_side_by_side(answered, capsys):
    with served(strict) as server:
        assert judge(answered, server, "--yes", "--repeats", "2", "--price", "1", "2") == 0
        assert len(server.requests) == 4
        prompt = server.requests[0]["messages"][0]["content"]
        assert "red lamp on desk X:12 Y:40 Width:33 Height:80" in prompt  # the published script writes the width twice
        assert "4 requests to local" in capsys.readouterr().err
        assert judge(answered, server) == 0  # nothing is left to ask, so nobody has to agree
        assert len(server.requests) == 4
    results = {each.model: each for each in report.find_results([answered / "judged"])}
    assert results["eager"].figures["accuracy (of 10)"].value == 5.5
    assert results["honest"].figures["accuracy (of 10)"].value == 9
    assert results["eager"].figures["relevancy (of 10)"].value == 9.5
    assert results["eager"].answers[1].score == 0.2
    assert results["honest"].settings["judge"] == "local"


def test_judge_that_does_not_keep_to_the_form_is_asked_again(answered, capsys):
    replies = iter(["I like both.", None])
    with served(lambda request: next(replies, None) or strict(request)) as server:
        assert judge(answered, server, "--yes") == 1
        assert "1 replies were not of the form" in capsys.readouterr().err
        assert judge(answered, server, "--yes") == 0
        assert len(server.requests) == 3


def test_nothing_is_spent_without_a_yes(answered, capsys):
    with served(strict) as server:
        assert judge(answered, server) == 2
        assert server.requests == []
    assert "--yes" in capsys.readouterr().err


@pytest.mark.parametrize("captions", [{"23": [{"caption": "x"}]}, {}, [], {"23": [{"caption": "x", "bbox": [1, 2, 3]}]}])
def test_wrong_captions_are_one_line(answered, capsys, captions):
    (answered / "vg.json").write_text(json.dumps(captions))
    with served(strict) as server:
        assert judge(answered, server, "--yes") == 2
    error = capsys.readouterr().err
    assert "is no dense captions" in error and error.count("\n") == 1


def test_examiner_judges_by_the_right_answer(tmp_path):
    rows = [{"image": "a.jpg", "question": "What is in front?", "answers": ["couch"]}]
    (tmp_path / "vqa.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "answers.json").write_text(json.dumps([{"question_id": "1", "answer": "a brown sofa"}]))
    flags = ["--predictions", str(tmp_path / "answers.json"), "--name", "m", "--output_dir", str(tmp_path / "o")]
    assert main(["vqa", str(tmp_path / "vqa.jsonl"), *flags]) == 0
    assert report.find_results([tmp_path / "o"])[0].figures["accuracy"].value == 0
    with served(lambda request: "Student Answer1: correct" if "Correct Answer: couch" in str(request) else "no") as server:
        flags = ["--server", server.url, "--yes", "--output_dir", str(tmp_path / "judged")]
        assert main(["judge", str(tmp_path / "o"), *flags]) == 0
    assert report.find_results([tmp_path / "judged"])[0].figures["accuracy"].value == 1


@pytest.fixture
def votes(answered):
    assert main(["votes", str(answered / "answers"), "--output_dir", str(answered / "votes")]) == 0
    return answered / "votes"


def test_page_for_votes_does_not_say_whose_answers_they_are(votes):
    page = (votes / "votes.html").read_text()
    assert "Is there a zebra?" in page and "honest" not in page and "eager" not in page
    assert sorted(json.loads((votes / "votes.key.json").read_text())["orders"]["1"]) == ["eager", "honest"]


def test_votes_are_tallied(votes, capsys):
    key = json.loads((votes / "votes.key.json").read_text())
    side = key["orders"]["2"].index("honest")
    file = votes / "one.json"
    file.write_text(json.dumps({"name": key["name"], "votes": {"1": "tie", "2": side}}))
    assert main(["tally", str(file), "--key", str(votes / "votes.key.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"]["honest"]["value"] == 0.75
    for wrong in (
        {"name": "other", "votes": {}},
        {"name": key["name"], "votes": {"2": 5}},
        {"name": key["name"], "votes": {"9": 0}},
    ):
        file.write_text(json.dumps(wrong))
        assert main(["tally", str(file), "--key", str(votes / "votes.key.json")]) == 2


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.mark.browser
def test_person_votes_and_saves(browser, votes, tmp_path, capsys):
    page = browser.new_page(locale="en-US")
    page.goto((votes / "votes.html").as_uri())
    key = json.loads((votes / "votes.key.json").read_text())
    for question in key["orders"].values():
        page.locator("#answers button").nth(question.index("honest")).click()
    page.locator("#count", has_text="voted: 2").wait_for()
    page.reload()
    while "voted: 2" not in page.locator("#count").inner_text():  # the browser writes what it keeps in its own time
        page.reload()
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as(tmp_path / "votes.json")
    page.close()
    capsys.readouterr()
    assert main(["tally", str(tmp_path / "votes.json"), "--key", str(votes / "votes.key.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"]["honest"]["value"] == 1


@pytest.mark.browser
def test_page_of_results_is_read_filtered_and_runs_nothing(browser, tmp_path):
    rows = [
        {"question_id": n, "image": "a.jpg", "text": f"Is there <img src=x onerror='window.hacked=1'> {n}?", "label": label}
        for n, label in enumerate(("yes", "no", "no"))
    ]
    (tmp_path / "coco_pope_popular.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [
        {"question_id": f"popular-{n}", "answer": text}
        for n, text in enumerate(("Yes", "No", "</script><script>window.hacked=1"))
    ]
    (tmp_path / "m.json").write_text(json.dumps(answers))
    flags = ["--predictions", str(tmp_path / "m.json"), "--output_dir", str(tmp_path / "o")]
    assert main(["pope", str(tmp_path / "coco_pope_popular.json"), *flags]) == 0
    page = browser.new_page(locale="en-US")
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "o" / "report.html").as_uri())
    assert page.locator("article").count() == 3
    page.get_by_text("66.7%").first.wait_for()
    page.get_by_label("only wrong ones").check()
    page.locator("article").nth(1).wait_for(state="detached")
    assert "window.hacked" in page.locator("article").inner_text()
    page.locator("#language").click()
    page.get_by_role("heading", name="评测结果").wait_for()
    page.locator("th", has_text="准确率").first.wait_for()
    assert page.evaluate("window.hacked") is None and errors == []
    page.close()
