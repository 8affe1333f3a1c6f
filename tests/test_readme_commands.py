"""Every command that the README and the pages of docs/ tell is one that the programs take; those that can run here are run."""

import argparse
import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

import installer.command_line
import training.train.config

ROOT = Path(__file__).resolve().parent.parent
READMES = ["README.md", "README_zh.md"]
PAGES = [*READMES, *sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "docs").glob("*.md"))]
PROGRAM = re.compile(r"^(?:\.venv/bin/)?python3? (?=-m (?:demo|training|pipelines\.doctor)|install\.py)")

OPTIONAL = re.compile(r"\[(--[^\]]*)\]")


def commands(page: str) -> list[list[str]]:
    """Those of the project in the page's shell blocks, in words."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [
        line
        for block in re.findall(r"```(?:bash|sh|shell)\n(.*?)```", text, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [shlex.split(OPTIONAL.sub(r"\1", line), comments=True)[1:] for line in lines if PROGRAM.match(line)]


EVERYWHERE = [pytest.param(words, id=f"{page}-{number}") for page in PAGES for number, words in enumerate(commands(page))]


class Parsed(Exception):
    """A parser has taken the command line; what would be done is left."""


@pytest.fixture
def only_parsed(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *arguments, **options):
        raise Parsed(parse(self, *arguments, **options))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)


@pytest.mark.parametrize("words", EVERYWHERE)
def test_command_is_taken(words, only_parsed):
    if words[0] == "install.py":
        installer.command_line.parse(words[1:])
    elif words[:3] == ["-m", "training", "train"]:
        training.train.config.parse([*words[3:], "--use_cpu"])  # the recipes' bfloat16 needs a GPU, or this word
    else:
        main = importlib.import_module(words[1] if "." in words[1] else f"{words[1]}.__main__").main
        with pytest.raises((Parsed, SystemExit)) as stopped:
            main(words[2:])
        assert isinstance(stopped.value, Parsed) or (stopped.value.code == 0 and "--help" in words)


def test_there_are_commands_of_every_program():
    told = {tuple(words[:2]) if words[0] == "-m" else words[0] for words in commands("README.md")}
    assert told >= {"install.py", ("-m", "demo"), ("-m", "training")}


def test_both_languages_tell_the_same_commands():
    english, chinese = (
        [[word for word in words if " " not in word and word.isascii()] for words in map(list, commands(page))]
        for page in READMES
    )
    assert english == chinese


@pytest.mark.parametrize("page", READMES)
def test_questions_about_the_examples_are_answered(page, monkeypatch, capsys):
    from demo import ask

    monkeypatch.chdir(ROOT)
    asked = [words for words in commands(page) if words[:3] == ["-m", "demo", "ask"] and "demo/examples/" in " ".join(words)]
    assert asked
    answers = []
    for words in asked:
        assert ask.main([*words[3:], "--only_cpu"]) == 0
        answers.append(capsys.readouterr().out.strip())
    assert all(answers) and f"```\n{answers[0]}\n```" in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", READMES)
def test_python_of_the_page_names_what_there_is(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        tree = ast.parse(block)
        names = {
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "visualcla"
        }
        assert names and all(hasattr(importlib.import_module("pipelines.visualcla"), name) for name in names)


def test_every_file_that_a_page_links_to_is_there():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8")):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
