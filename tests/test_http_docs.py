"""The page on HTTP can be followed: its commands and its program work as printed."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from elytron.faces.http import limits, problems
from elytron.faces.serving import serve
from serving import serving_process

PAGE = (Path(__file__).parents[1] / "docs" / "faces.md").read_text(encoding="utf-8")
PRINTED = "http://127.0.0.1:7700"


def commands() -> list[str]:
    """The commands of the page, each on one line."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.S | re.M)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_and_the_program_work_as_printed(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
    answers = []
    with serving_process(tmp_path / "store") as where:
        for command in commands():
            if not command.startswith("curl "):
                continue
            done = subprocess.run(
                command.replace(PRINTED, where.url),
                shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
            )  # fmt: skip
            if done.stdout:
                answers.append(json.loads(done.stdout))
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program.replace(PRINTED, where.url)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "I play the cello.\n"
    assert len(answers) == 9
    assert not [answer for answer in answers if isinstance(answer, dict) and "error" in answer]
    assert answers[0]["id"] == "m1"
    assert answers[2][0]["message"]["id"] == "m1"
    assert answers[5] == [{"name": "Alice", "n": 1}]
    assert answers[-1]["imported"] == 1


def test_the_commands_on_tokens_work_as_printed(tmp_path: Path) -> None:
    for command in commands():
        if command.startswith("elytron token"):
            done = subprocess.run(
                [sys.executable, "-W", "error", "-m", *shlex.split(command)],
                cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (command, done.stderr)


def test_every_option_of_serve_that_is_a_limit_is_on_the_page_with_its_default() -> None:
    defaults = limits.Limits()
    for name in limits.Limits.__dataclass_fields__:
        option = f"--{name.replace('_', '-')}"
        (row,) = re.findall(rf"^\| `{option}` \| ([\d.]+)", PAGE, re.M)
        assert float(row) == getattr(defaults, name)
        assert option in {opt for parameter in serve.params for opt in parameter.opts}


def test_every_status_is_on_the_page_with_its_errors() -> None:
    table = PAGE[PAGE.index("## Errors") : PAGE.index("## Its end")]
    for code, status in problems.STATUSES.items():
        rows = [line for line in table.splitlines() if f"`{code}`" in line]
        assert any(str(status) in row.split("|")[1] for row in rows), code
