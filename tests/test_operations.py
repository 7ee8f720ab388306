"""The page for whoever keeps a store running says what the code does."""

import re
import shlex
from pathlib import Path

import click
import pytest

import elytron
from elytron import errors
from elytron.faces import exits, metrics
from elytron.faces.cli import main
from elytron.faces.http.problems import STATUSES
from test_docs import Reader, steps

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "operations.md"
PAGE = FILE.read_text(encoding="utf-8")
LEAVES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type)
    and issubclass(value, errors.ElytronError)
    and value is not errors.ElytronError
}


def test_every_error_has_its_row_with_what_the_code_says_of_it() -> None:
    columns = (r"`(\w+)`", r"`([\w-]+)`", r"(\d+)", r"(\d+)", "(yes|no)", ".{20}")
    rows = re.findall(r"^\| " + r" \| ".join(columns), PAGE, re.M)
    told = {name: rest for name, *rest in rows}
    assert told == {
        name: [
            leaf.code,
            str(exits.number(leaf.code)),
            str(STATUSES[leaf.code]),
            "yes" if leaf.retryable else "no",
        ]
        for name, leaf in LEAVES.items()
    }


def test_every_metric_is_told_and_no_other(folder: Path) -> None:
    with elytron.open(folder) as store:
        store.agent("bob").save("user", "Hello")
        text = metrics.render(store).decode()
    made = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    assert set(re.findall(r"`(elytron_\w+)`", PAGE)) == made


def test_the_page_can_be_followed(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.follow(FILE)
    assert reader.done.count("sh") == sum(
        block.count("elytron ") for kind, block in steps(FILE) if kind == "sh"
    )


@pytest.mark.parametrize("page", ["operations.md", "guarantees.md"])
def test_commands_within_the_text_are_there_with_their_options(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"(?:`|ExecStart=\S*/)elytron ([a-z][^`\n]*)", text)
    assert found
    for words in found:
        command: click.Command = main
        for word in shlex.split(words):
            if isinstance(command, click.Group):
                assert word in command.commands, words
                command = command.commands[word]
            elif word.startswith("--"):
                known = {name for option in command.params for name in option.opts}
                assert word in known, words
