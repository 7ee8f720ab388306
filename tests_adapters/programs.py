"""Programs run as a user would run them: the examples, and those in the documents."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_RUN_MAX_S = 120


def run_program(*arguments: str, cwd: Path) -> str:
    """What a program printed, in an interpreter of its own where warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=_RUN_MAX_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def documented(heading: str) -> str:
    """The Python of one section of docs/integrations.md."""
    page = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (program,) = re.findall(r"```python\n(.*?)```", section, re.S)
    return str(program)
