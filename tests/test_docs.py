"""The documents say what the code does: settings, links, and the first minute as printed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from elytron import errors
from elytron.faces import settings_reference

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


def test_the_settings_page_is_in_step_with_the_code() -> None:
    held = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert held == settings_reference.markdown(), (
        "run: python -m elytron.faces.settings_reference > docs/settings.md"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_the_pages_name_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:bench|tests|docs)/[\w/.-]+\.\w+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_first_minute_in_python_works_as_printed(tmp_path: Path) -> None:
    (program,) = blocks(ROOT / "README.md", "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Alice" in done.stdout
    assert "Lyon" in done.stdout


def test_the_first_example_of_getting_started_works_as_printed(tmp_path: Path) -> None:
    first, retrying, *_ = blocks(ROOT / "docs" / "start.md", "python")
    program = f"{first}\n{retrying}\nwith elytron.open('data/memory') as store:\n"
    program += "    print(save(store.agent('Bob'), 'hello', 'one').new)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"


def test_the_first_minute_in_the_shell_works_as_printed(tmp_path: Path) -> None:
    """The import is left out: it names a file that the reader has."""
    commands = [
        line.split("#")[0]
        for block in blocks(ROOT / "README.md", "sh")
        for line in block.splitlines()
        if line.startswith("elytron ") and " import " not in line
    ]
    assert len(commands) >= 3
    printed = ""
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", *shlex.split(command)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
        printed += done.stdout
    assert "Lyon" in printed


def steps(page: Path) -> list[tuple[str, str]]:
    """The blocks of a page that a reader would carry out, in their order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```(sh|yaml|python|text)\n(.*?)^```", text, re.S | re.M)


def without_sizes(printed: str) -> str:
    """What was printed, but for the sizes, which depend on the version."""
    return re.sub(r"[\d.,]+ [KM]?B", "SIZE", re.sub(r" +", " ", re.sub(r"─+", "─", printed)))


def test_the_guide_can_be_followed_from_its_first_line_to_its_last(tmp_path: Path) -> None:
    """
    Each block is carried out after those above it, in one folder.

    `text` is what the command before it has printed, `memory.yaml` the one file of settings. Only
    commands of elytron are run: not everybody has `zstdcat`.
    """
    environment = dict(os.environ, COLUMNS="80")
    printed, commands, programs = "", 0, 0

    def run(*arguments: str) -> None:
        nonlocal printed
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stderr)
        printed = done.stdout

    for kind, block in steps(ROOT / "docs" / "guide.md"):
        if kind == "yaml":
            (tmp_path / "memory.yaml").write_text(block, encoding="utf-8")
            environment["ELYTRON_CONFIG"] = "memory.yaml"
        elif kind == "python":
            run("-c", block)
            programs += 1
        elif kind == "text":
            assert without_sizes(printed).strip() == without_sizes(block).strip()
        else:
            for line in block.splitlines():
                if line.startswith("elytron "):
                    run("-m", *shlex.split(line, comments=True))
                    commands += 1
    assert commands >= 15
    assert programs >= 2


def test_every_error_has_its_row_in_getting_started() -> None:
    page = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    leaves = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, errors.ElytronError)
        and value is not errors.ElytronError
    ]
    assert leaves
    for name in leaves:
        assert f"`{name}`" in page, name
