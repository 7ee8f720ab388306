"""
Valgrind: the graph's worker process under memcheck, at its whole work.

The worker is started in place of the interpreter that the client starts: `sys.executable` of this
program names a small script that runs valgrind. Nothing in the package knows of it. What is found
is told by whose it is: the engine's, CPython's, another's. Exits with 1 where anything was found
that is not in `KNOWN` below; with 2 where valgrind is missing. What CPython does on purpose is in
`bench/valgrind.supp`.

The package itself has no native code, so "ours" is what we have the engine do.
"""

import argparse
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import elytron
from elytron.graph import process
from messages import varied

SUPPRESSIONS = Path(__file__).with_suffix(".supp")
MESSAGES, AFTERWARDS = 300, 60
# Under valgrind all takes some fifty times as long.
START_MAX_S, CLOSE_MAX_S, CALL_MAX_S = 900.0, 1800.0, 3000.0
SETTINGS = {
    "graph_timeout_s": CALL_MAX_S,
    "graph_build_timeout_s": CALL_MAX_S,
    "graph_idle_s": 86_400,
    "save_timeout_s": CALL_MAX_S,
    "read_timeout_s": CALL_MAX_S,
    "max_worker_mb": 16_384,
}
QUESTIONS = (
    "MATCH (m:Message) RETURN count(m) AS messages",
    "MATCH (u:User)-[:SENT]->(m:Message) RETURN u.id, count(m) AS said ORDER BY said DESC",
    "MATCH (m:Message)-[:PART_OF]->(s:Session) RETURN s.id, collect(m.content)[1:3] LIMIT 5",
    "MATCH (a:Message)-[r:RESPONDS_TO]->(b:Message) RETURN a, r, b LIMIT 20",
    "MATCH (m:Message)-[:MENTIONS]->(c:Concept) RETURN c.name, count(m) AS n ORDER BY n DESC",
    "MATCH p = (a:Concept)-[:RELATES_TO* SHORTEST 1..3]->(b:Concept) RETURN p LIMIT 5",
    "MATCH (m:Memory) RETURN m.content, m.importance, m.valid_from",
)
ENGINE = "LadybugDB"
OWNERS = (("/ladybug/", ENGINE), ("/lib-dynload/", "CPython"), ("/bin/python3", "CPython"))
_C_LIBRARIES = ("vgpreload", "libc.so", "ld-linux", "libstdc++", "libm.so", "libgcc")
_INTERPRETER = "_PyEval_EvalFrameDefault"
_SHOWN_MAX = 12


class Known(NamedTuple):
    """Something that is found each time, and what it means."""

    kind: str
    function: str  # that is met in its stack
    meaning: str


KNOWN = (
    Known(
        "Leak_DefinitelyLost",
        "converTimestampToPyObject",
        "the engine forgets a Python datetime for each time that it returns; the worker is renewed"
        " before that matters (`max_worker_mb`)",
    ),
    Known(
        "SyscallParam",
        "lbug::common::LocalFileSystem::writeFile",
        "the engine pads what it writes with memory that it did not set: a graph's file may hold"
        " pieces of whatever the worker had in memory before",
    ),
)


class Found(NamedTuple):
    """One error of memcheck, as often as it was met."""

    kind: str
    owner: str
    blocks: int
    bytes: int
    where: tuple[str, ...]

    @property
    def known(self) -> Known | None:
        for one in KNOWN:
            if one.kind == self.kind and any(one.function in name for name in self.where):
                return one
        return None


def command(valgrind: str, folder: Path, *, suppressions: bool) -> str:
    """A script that takes the arguments of an interpreter and runs it under memcheck."""
    options = [
        "--tool=memcheck",
        "--leak-check=full",
        "--show-leak-kinds=definite",
        "--errors-for-leak-kinds=definite",
        "--error-exitcode=9",
        "--num-callers=30",
        "--xml=yes",
        f"--xml-file={folder}/found-%p.xml",
        *([f"--suppressions={SUPPRESSIONS}"] if suppressions else []),
    ]
    quoted = " ".join([f"'{option}'" for option in options])
    # The client starts it with -I, for which no environment counts; PYTHONMALLOC has to.
    return (
        "#!/bin/sh\n"
        '[ "$1" = -I ] || exit 3\n'
        "shift\n"
        "unset PYTHONPATH PYTHONHOME PYTHONSTARTUP\n"
        f"PYTHONMALLOC=malloc exec '{valgrind}' {quoted} '{sys.executable}' -s -P \"$@\"\n"
    )


def be_patient() -> None:
    """Give the worker as long as it takes to start and to close; nothing else is changed."""
    process.START_MAX_S = START_MAX_S
    process._CLOSE_S = CLOSE_MAX_S
    process._REAP_S = CLOSE_MAX_S
    patience = f" from elytron.graph import worker; worker._CLOSE_S = {CLOSE_MAX_S}; main()"
    process._BOOT = process._BOOT.removesuffix(" main()") + patience


def work(folder: Path, *, rounds: int) -> None:
    """All that a worker does: build, ask, follow changes, refuse, rebuild, give back, close."""
    clock = time.perf_counter()

    def told(what: str) -> None:
        print(f"  {time.perf_counter() - clock:7.1f} s  {what}", flush=True)

    with elytron.open(folder, config=SETTINGS) as store:
        bob = store.agent("bob")
        bob.save_many(varied(MESSAGES))
        for number, name in enumerate(("Lyon", "Python", "Alice", "Paris")):
            bob.remember(f"Alice spoke of {name}", about=["Alice", name], importance=0.2 * number)
        bob.relate("Alice", "lives in", "Lyon")
        bob.relate("Lyon", "is in", "France")
        ask(bob)
        told(f"a graph of {MESSAGES} messages was built, and asked {len(QUESTIONS)} questions")
        for turn in range(rounds):
            change(bob, turn)
            ask(bob)
            told(f"round {turn + 1}: changes were applied, and it was asked again")
            bob.rebuild_graph()
            ask(bob)
            told(f"round {turn + 1}: it was built anew, and asked again")
        store.agent("eve").save_many(varied(20))
        store.agent("eve").cypher(QUESTIONS[0])
        told("another agent's graph was built beside it")
        (row,) = bob.cypher(QUESTIONS[0])
        assert row["messages"] == bob.usage().messages, "the graph is not what the ledger is"
        worker = store.usage().worker
        assert worker.starts == 1, f"the worker was started {worker.starts} times: {worker}"
    told("closed")


def ask(bob: elytron.Agent) -> None:
    """What can be asked, and what is refused."""
    for question in QUESTIONS:
        bob.cypher(question)
    bob.related("Alice", depth=2)
    bob.path("Alice", "France")
    for wrong in ("MATCH (m:Nothing) RETURN m", "MATCH (m:Message) RETURN m.nothing", "RETURN 1/0"):
        refused = False
        try:
            bob.cypher(wrong)
        except elytron.InvalidArgument:
            refused = True
        assert refused, f"not refused: {wrong}"


def change(bob: elytron.Agent, turn: int) -> None:
    """Every kind of change that a graph follows."""
    bob.save_many(varied(AFTERWARDS))
    oldest = bob.history(limit=6)
    bob.edit(oldest[0].id, f"Edited, with Lyon, in round {turn}")
    bob.delete(oldest[1].id)
    bob.pin(oldest[2].id)
    bob.archive(keep=MESSAGES)
    (memory, *_) = bob.memories()
    bob.close_memory(memory.id)
    bob.relate("Alice", "knows", f"Friend {turn}")


def found_in(path: Path) -> Iterator[Found]:
    """What a report of memcheck says."""
    root = ET.parse(path).getroot()
    times = {pair.findtext("unique"): pair.findtext("count") for pair in root.iter("pair")}
    for error in root.iter("error"):
        frames = list(next(error.iter("stack")).iter("frame"))
        blocks = error.findtext("xwhat/leakedblocks") or times.get(error.findtext("unique"))
        yield Found(
            kind=error.findtext("kind") or "?",
            owner=owner_of(frames),
            blocks=int(blocks or 1),
            bytes=int(error.findtext("xwhat/leakedbytes") or 0),
            where=tuple([frame.findtext("fn") or "?" for frame in frames]),
        )


def owner_of(frames: list[ET.Element]) -> str:
    """
    Whose code did it: the innermost that is no library of C's; but the engine, where that called
    the interpreter for it.
    """
    owners = []
    for frame in frames:
        if frame.findtext("fn") == _INTERPRETER:
            break
        path = frame.findtext("obj") or ""
        if not Path(path).name.startswith(_C_LIBRARIES):
            known = [owner for part, owner in OWNERS if part in path]
            owners.append(known[0] if known else Path(path).name or "unknown")
    if ENGINE in owners:
        return ENGINE
    return owners[0] if owners else "CPython"


def report(paths: list[Path]) -> bool:
    """Print what was found; whether all of that is known."""
    found = [one for path in paths for one in found_in(path)]
    blocks: Counter[tuple[str, str, str]] = Counter()
    sizes: Counter[tuple[str, str, str]] = Counter()
    for one in found:
        key = one.owner, one.kind, one.known.meaning if one.known else "NOT KNOWN"
        blocks[key] += one.blocks
        sizes[key] += one.bytes
    for (owner, kind, meaning), times in sorted(blocks.items()):
        lost = f" ({sizes[owner, kind, meaning]:,} bytes)" if sizes[owner, kind, meaning] else ""
        print(f"{owner}: {kind} {times} times{lost}: {meaning}")
    new = [one for one in found if one.known is None]
    for one in new[:_SHOWN_MAX]:
        print(f"  {one.kind} of {one.owner}, {one.blocks} times, {one.bytes:,} bytes")
        print("    " + "\n    ".join([name[:100] for name in one.where[:_SHOWN_MAX]]))
    kinds = ("InvalidRead", "InvalidWrite", "InvalidFree", "UninitCondition", "UninitValue")
    clean = [kind for kind in kinds if all(one.kind != kind for one in found)]
    print(f"not once: {', '.join(clean) or 'none'}")
    return not new


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="of changes and of building anew")
    parser.add_argument("--all", action="store_true", help="also what is known, without the .supp")
    arguments = parser.parse_args()
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("valgrind is not installed: apt-get install valgrind, or dnf install valgrind")
        return 2
    shown = subprocess.run([valgrind, "--version"], capture_output=True, text=True, check=True)
    print(f"{shown.stdout.strip()}, CPython {sys.version.split()[0]}, ", end="")
    print(f"Elytron {elytron.__version__}; {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = folder / "python"
        script.write_text(command(valgrind, folder, suppressions=not arguments.all))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        be_patient()
        sys.executable = os.fspath(script)
        work(folder / "store", rounds=arguments.rounds)
        reports = sorted(folder.glob("found-*.xml"))
        assert reports, "valgrind has written nothing"
        return 0 if report(reports) else 1


if __name__ == "__main__":
    sys.exit(main())
