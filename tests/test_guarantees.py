"""The page of promises: each has a test that shows it, and each test that it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/test_\w+\.py)::(\w+)`")
NOT_PROMISED = "What is not promised"
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE, re.M))


@cache
def collected(path: str) -> frozenset[str]:
    """What pytest would collect of a file: functions, and the classes of state machines."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    machines = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.value).endswith(".TestCase")
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return frozenset(name for name in functions | machines if re.match("test|Test", name))


def test_the_page_has_its_sections() -> None:
    assert len(SECTIONS) >= 15
    assert NOT_PROMISED in SECTIONS
    assert PAGE.count("\n## ") == len(SECTIONS), "no two have one name"


@pytest.mark.parametrize("title", [title for title in SECTIONS if title != NOT_PROMISED])
def test_each_promise_says_what_it_survives_and_what_shows_it(title: str) -> None:
    promised, _, rest = SECTIONS[title].partition("**Survives:** ")
    survives, _, shown = rest.partition("**Shown by:**\n")
    assert len(promised.strip()) > 50
    assert len(survives.strip()) > 20
    lines = [line for line in shown.splitlines() if line]
    assert lines
    for line in lines:
        assert NAMED.fullmatch(line.removeprefix("- ")), line
    assert len(lines) == len(set(lines))


def test_every_test_that_the_page_names_is_there() -> None:
    missing = [
        f"{path}::{name}"
        for path, name in NAMED.findall(PAGE)
        if not (ROOT / path).is_file() or name not in collected(path)
    ]
    assert not missing


def test_nothing_else_is_named_as_if_it_were_a_test() -> None:
    """A name that is not in the form above would not be looked for."""
    assert PAGE.count("::") == len(NAMED.findall(PAGE))
