"""
The scoreboard: Elytron beside what one would otherwise pick, in one run on one machine.

    python bench/peers/run.py [--small] [--reuse] [--only NAME ...]

Each peer gets an environment of its own, made from fresh; each measure a process of its own, the
peers in turn within each measure, so that a busy machine is busy for all. Prints tables, writes
bench/peers/results.json and, with all peers and in full, the plots in docs/peers/ and the section
of docs/performance.md. Linux: memory and descriptors come from /proc.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import environments
import outside
import tables
import workload
from environments import ENTRIES, Entry

RESULTS = Path(__file__).parent / "results.json"
IMPORTS = 5
INSIDE = ("first", "lone", "threads", "reading", "churn", "agents")
OUTSIDE = {"traced": outside.traced, "together": outside.together, "kills": outside.kills}


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What the figures hang on, and nothing that names the machine or its owner."""
    with tempfile.TemporaryDirectory() as folder:
        disk = subprocess.run(
            ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", folder],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(pages * page / 2**30),
        "kernel": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "disk": disk.stdout.strip() or "unknown",
        "python": platform.python_version(),
    }


def prepare(entries: dict[str, Entry], reuse: bool) -> None:
    made: set[str | None] = set()
    with tempfile.TemporaryDirectory() as folder:
        wheel = environments.build_wheel(Path(folder))
        for entry in entries.values():
            if entry.requirements in made:
                continue
            made.add(entry.requirements)
            tell(f"environment: {entry.requirements or 'nothing'}")
            ours = wheel if entry.module == "peer_elytron" else None
            environments.make(entry.requirements, wheel=ours, reuse=reuse)


def measure(entries: dict[str, Entry], small: bool) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {name: {} for name in entries}
    for name, entry in entries.items():
        sentence = importlib.import_module(entry.module).SENTENCE
        found[name]["installed"] = environments.installed(entry)
        found[name]["imported"] = environments.imported(entry, sentence, 1 if small else IMPORTS)
    for what in (*INSIDE, *OUTSIDE):
        for name, entry in entries.items():
            start = time.monotonic()
            run = OUTSIDE.get(what)
            found[name][what] = run(entry, small) if run else outside.inside(entry, what, small)
            failed = found[name][what].get("failed", "")
            tell(f"{what:9} {name:18} {time.monotonic() - start:6.1f} s {failed}")
    return found


def publish() -> None:
    """Plots and the page, of the results as they lie."""
    python = environments.make(environments.PLOTS, reuse=True)
    here = Path(__file__).parent
    for script in ("plots.py", "report.py"):
        subprocess.run([python, here / script], check=True, timeout=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--small", action="store_true", help="try the harness; writes no page")
    parser.add_argument("--reuse", action="store_true", help="keep environments that are there")
    parser.add_argument("--only", nargs="+", choices=ENTRIES, default=list(ENTRIES))
    asked = parser.parse_args()
    entries = {name: ENTRIES[name] for name in ENTRIES if name in asked.only}
    start = time.monotonic()
    prepare(entries, asked.reuse)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "small": asked.small,
        "machine": machine(),
        "dimensions": workload.DIMS,
        "vectors": [name for name, entry in entries.items() if entry.vectors],
        "titles": {name: entry.title for name, entry in entries.items()},
        "peers": measure(entries, asked.small),
    }
    results["took_s"] = round(time.monotonic() - start)
    print(tables.markdown(results))
    whole = not asked.small and set(entries) == set(ENTRIES)
    path = RESULTS if whole else environments.FOLDER / "part.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if whole:
        publish()
    else:
        tell(f"a part, or a trial: written to {path}; the page stays as it is")


if __name__ == "__main__":
    main()
