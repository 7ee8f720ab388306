"""
A store with everything in it, and what all its reading verbs show, held against what was written.

It is made, and looked at, in processes of their own: what a damaged file does to its host is what
is to be found out. Here nothing is decided but whether what is shown is so.
"""

import dataclasses
import io
import itertools
import json
import logging
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import elytron
from proof_nursery import Wire

BOB, EVE = "bob", "eve"
SETTINGS: dict[str, Any] = {
    "wal_limit_mb": 1,
    "max_message_kb": 32,
    "max_total_mb": 64,
    "reserve_mb": 0.0625,
    "min_embed_chars": 10,
    "vector_dims": 0,
    "page_cache_mb": 0.5,
    "auto_cleanup": False,
    "save_timeout_s": 30,
    "graph_timeout_s": 30,
}
ABOUT = 2  # its place in what is noted of a memory
SESSION, USER, MARK = 4, 5, 8  # theirs in what is noted of a message
UNMARKED = [0.5, False]
_FIRST = datetime(2024, 5, 8, 9, 30, tzinfo=UTC)
_HELD, _ARCHIVED = 90, 40
_NAMES = "Alice Marseille Pascal Grenoble Hannah Toulouse Martin Lyon".split()
_GRAPH = "MATCH (m:Message) RETURN m.id AS id, m.content AS content"
Seen = dict[str, Any]


def embed(texts: list[str], kind: str) -> Any:
    """Vectors that follow from the texts."""
    rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=16) for text in texts]
    return np.stack(rows).astype(np.float32)


def opened(folder: Path) -> elytron.Store:
    return elytron.open(folder, embedder=embed, **SETTINGS)


def token(ident: str) -> str:
    """A word that only this message, or memory, has."""
    return "unique" + ident.replace("-", "x")


def _draft(ident: str, number: int) -> dict[str, Any]:
    name = _NAMES[number % len(_NAMES)]
    return {
        "id": ident,
        "role": "assistant" if number % 3 == 2 else "user",
        "content": f"{token(ident)} is what {name} said of the river, naïvely. "
        + "So it was. " * (number % 40),
        "session": f"web-{number // 30}",
        "user": (None, "alice", "carol")[number % 3],
        "at": _FIRST + timedelta(minutes=number, microseconds=number),
        "metadata": {"n": number, "é": [1, None]} if number % 4 == 0 else {},
        "importance": 0.75 if number % 7 == 0 else None,
        "pinned": number % 11 == 10,
    }  # fmt: skip


def make(wire: Wire, folder: str, graph: bool) -> None:
    """Make the store, and leave it as a process does that is killed: with frames in its log."""
    store = opened(Path(folder))
    store.agent(EVE).save_many([_draft(f"eve-{n}", n) for n in range(12)])
    bob = store.agent(BOB)
    for start in (0, _ARCHIVED // 2):  # a segment each
        bob.save_many([_draft(f"m-{n}", n) for n in range(start, start + _ARCHIVED // 2)])
        bob.archive(older_than_days=0, keep=0)
    bob.save_many([_draft(f"m-{n}", n) for n in range(_ARCHIVED, _ARCHIVED + _HELD)])
    for n, (source, target) in enumerate(itertools.pairwise(_NAMES)):
        bob.remember(
            f"{token(f'k-{n}')}: {source} knows {target} well.", id=f"k-{n}", about=[source]
        )
        bob.relate(source, "knows", target, strength=0.5)
    for n in range(_ARCHIVED, _ARCHIVED + 8):
        bob.edit(f"m-{n}", f"{token(f'm-{n}')} was put in other words.")
    for n in range(_ARCHIVED + 12, _ARCHIVED + 16):
        bob.delete(f"m-{n}")
    bob.flush()
    if graph:
        assert bob.cypher(_GRAPH)
    bob.reclaim()
    late = []
    for n in range(500, 506):  # a commit each, in the log alone
        bob.save(**_draft(f"m-{n}", n))
        late.append(f"m-{n}")
        if n == 502:
            bob.remember(f"{token('k-late')}: Lyon is where it ends.", id="k-late")
            bob.relate("Lyon", "follows", "Alice")
            late += ["k-late", "Lyon follows Alice"]
    wire.tell(late=late, seen={name: _look(store.agent(name), None) for name in (BOB, EVE)})
    # Not closed: the process ends here.


# -- looking


def _look(agent: elytron.Agent, truth: Seen | None, *, ask: bool = False) -> Seen:
    """All that the reading verbs show, by verb; and their errors."""
    errors: list[list[str]] = []
    seen: Seen = {"errors": errors}

    def note(verb: str, read: Callable[[], Any]) -> None:
        try:
            seen[verb] = read()
        except elytron.ElytronError as error:
            errors.append([verb, error.code, str(error)[:300]])

    ids = list(truth["all"] if truth else [m.id for m in agent.messages(archived=True)])
    note("all", lambda: _by_id(agent.messages(archived=True)))
    note("held", lambda: [m.id for m in agent.messages()])
    held = truth["held"] if truth else seen["held"]
    note("history", lambda: _by_id(agent.history(limit=1000)))
    for ident in held:
        note(f"get {ident}", lambda ident=ident: _by_id(filter(None, [agent.get(ident)])))
    sessions = truth["sessions"] if truth else {s.id: s.messages for s in agent.sessions()}
    note("sessions", lambda: {s.id: s.messages for s in agent.sessions()})
    for session in sessions:
        note(f"history {session}", lambda s=session: _by_id(agent.history(s, limit=1000)))
    for ident in ids[:: 31 if truth else 1]:
        note(f"recall {ident}", lambda ident=ident: _found(agent, ident))
    note("export", lambda: _exported(agent))
    note("memories", lambda: {m.id: _memory(m) for m in agent.memories()})
    for ident in truth["memories"] if truth else seen["memories"]:
        note(f"memory {ident}", lambda ident=ident: _one_memory(agent, ident))
    note(
        "relations",
        lambda: {f"{r.source} {r.relation} {r.target}": r.strength for r in agent.relations()},
    )
    note("concepts", lambda: {c.name: c.origin for c in agent.concepts() if c.origin == "told"})
    note("counts", lambda: _counts(agent))
    if ask:
        note("graph", lambda: {row["id"]: row["content"] for row in agent.cypher(_GRAPH)})
    return seen


def _message(message: elytron.Message) -> list[Any]:
    return [
        message.id, message.role, message.content, message.at.isoformat(), message.session,
        message.user, dict(message.metadata), message.position, message.importance, message.pinned,
    ]  # fmt: skip


def _by_id(messages: Any) -> dict[str, list[Any]]:
    return {message.id: _message(message) for message in messages}


def _memory(memory: elytron.Memory) -> list[Any]:
    when = [
        None if at is None else at.isoformat()
        for at in (memory.valid_from, memory.valid_to, memory.created)
    ]
    return [
        memory.content,
        memory.kind,
        list(memory.about),
        memory.importance,
        memory.pinned,
        memory.session,
        when,
    ]


def _one_memory(agent: elytron.Agent, ident: str) -> dict[str, list[Any]]:
    memory = agent.get_memory(ident)
    return {} if memory is None else {memory.id: _memory(memory)}


def _found(agent: elytron.Agent, ident: str) -> dict[str, list[Any]]:
    hits = agent.recall(token(ident), limit=30, archived=True)
    return _by_id(hit.message for hit in hits if hit.memory is None)


def _exported(agent: elytron.Agent) -> list[str]:
    target = io.StringIO()
    agent.export(target, archived=True)
    return sorted(json.loads(line)["id"] for line in target.getvalue().splitlines())


def _counts(agent: elytron.Agent) -> dict[str, int]:
    usage = agent.usage()
    kinds = ("messages", "archived", "memories", "sessions", "users")
    return {kind: getattr(usage, kind) for kind in kinds}


# -- comparing


def _missing(seen: Seen, truth: Seen, new: set[str]) -> set[str]:
    """What a verb that gave an answer did not show."""
    missing: set[str] = set()
    for verb, was in truth.items():
        if verb == "errors" or verb not in seen:
            continue
        if verb == "counts":
            missing |= {
                f"count of {kind}" for kind, count in was.items() if seen[verb].get(kind, 0) < count
            }
        elif verb == "sessions":
            missing |= {
                f"session {ident}"
                for ident, count in was.items()
                if seen[verb].get(ident, 0) < count
            }
        elif verb.startswith("recall "):
            missing |= {verb.removeprefix("recall ")} & set(was) - set(seen[verb])
        else:
            missing |= set(was) - set(seen[verb])
        if verb == "all":
            missing |= {
                f"mark about {ident}"
                for ident, shown in seen[verb].items()
                if ident in was and shown[MARK:] == UNMARKED != was[ident][MARK:]
            }
        if verb == "memories":
            missing |= {
                f"{ident} about {name}"
                for ident, shown in seen[verb].items()
                for name in set(was.get(ident, shown)[ABOUT]) - set(shown[ABOUT])
            }
    for verb, kind in (("all", "m"), ("memories", "k")):
        missing |= {ident for ident in new if ident == f"new-{kind}"} - set(seen.get(verb, new))
    return missing


def _wrong(seen: Seen, truth: Seen, new: set[str]) -> list[str]:
    """What was shown as if it were right, and is not."""
    wrong = []
    known = {**truth["all"], **truth["memories"]}
    for verb, shown in seen.items():
        if verb in ("errors", "counts", "sessions", "concepts"):
            continue
        for ident in set(shown) - new:
            if verb == "relations":
                right = truth["relations"].get(ident) == shown[ident]
            elif verb == "graph":
                right = ident in known and shown[ident] == known[ident][2]
            elif isinstance(shown, list):
                right = ident in known
            elif verb.startswith("memor"):
                right = ident in known and _less_known(shown[ident], known[ident])
            else:
                right = ident in known and _less_named(shown[ident], known[ident])
            if not right:
                value = shown[ident] if isinstance(shown, dict) else None
                wrong.append(f"{verb}: {ident} {_unlike(value, known.get(ident))}")
    return wrong


def _less_known(shown: list[Any], was: list[Any]) -> bool:
    """Whether a memory is as it was, but for concepts that it is not said to be about any more."""
    return set(shown[ABOUT]) <= set(was[ABOUT]) and [*shown[:ABOUT], *shown[ABOUT + 1 :]] == [
        *was[:ABOUT], *was[ABOUT + 1 :]
    ]  # fmt: skip


def _less_named(shown: list[Any], was: list[Any]) -> bool:
    """
    Whether a message is as it was, but for a session or user whose name is lost: it says so itself,
    and the session is missing. Its mark may be, too, and is told as missing then.
    """
    right = [*was[:MARK], *(shown[MARK:] if shown[MARK:] == UNMARKED else was[MARK:])]
    for place, what in ((SESSION, "session"), (USER, "user")):
        if str(shown[place]).startswith(f"lost-{what}-"):
            right[place] = shown[place]
    return shown == right


def _unlike(shown: Any, was: Any) -> str:
    """Where two records differ."""
    if isinstance(shown, list) and isinstance(was, list):
        return str([pair for pair in zip(shown, was, strict=False) if pair[0] != pair[1]])[:300]
    return f"{shown!r:.150} was {was!r:.150}"


def compared(seen: Seen, truth: Seen, new: set[str]) -> Seen:
    return {
        "missing": sorted(_missing(seen, truth, new)),
        "wrong": _wrong(seen, truth, new)[:5],
        "errors": seen["errors"],
    }


# -- one try


def use(wire: Wire, folder: str, truth: str, ask: bool) -> None:
    """Open a damaged store, read, write, check, repair and read again; say what was seen."""
    logging.disable(logging.CRITICAL)
    told = json.loads(Path(truth).read_text(encoding="utf-8"))
    new: set[str] = set()
    for steps in (
        (("read", _read), ("write", _write), ("check", _check), ("repair", _repair)),
        (("read again", _read), ("check again", _check)),
    ):
        step = ""
        try:
            with opened(Path(folder)) as store:
                for step, work in steps:
                    wire.tell(step=step, **work(store, told, new, ask))
        except elytron.ElytronError as error:
            wire.tell(step=f"closing after {step}", errors=[["", error.code, str(error)[:300]]])


def _read(store: elytron.Store, told: Seen, new: set[str], ask: bool) -> Seen:
    agents = set(store.agents())
    outcome: Seen = {
        name: compared(
            _look(store.agent(name), told[name], ask=ask and name == BOB),
            told[name],
            new if name == BOB else set(),
        )
        for name in told
    }
    return {"agents": outcome, "unlisted": sorted(set(told) - agents)}


def _write(store: elytron.Store, told: Seen, new: set[str], ask: bool) -> Seen:
    bob = store.agent(BOB)
    errors = []
    for ident, write in (
        ("new-m", lambda: bob.save("user", "Said beside the damage.", id="new-m", session="new")),
        ("new-k", lambda: bob.remember("Learned beside the damage.", id="new-k")),
    ):
        try:
            write()
            new.add(ident)
        except elytron.ElytronError as error:
            errors.append([ident, error.code, str(error)[:300]])
    return {"errors": errors, "written": sorted(new)}


def _check(store: elytron.Store, told: Seen, new: set[str], ask: bool, **how: bool) -> Seen:
    errors, findings = [], []
    for name in told:
        try:
            findings += [
                list(dataclasses.astuple(f)) for f in store.agent(name).check(**how).findings
            ]
        except elytron.ElytronError as error:
            errors.append([f"check {name}", error.code, str(error)[:300]])
    return {"errors": errors, "findings": findings}


def _repair(store: elytron.Store, told: Seen, new: set[str], ask: bool) -> Seen:
    return _check(store, told, new, ask, repair=True)


def lines_until_end(lines: Iterator[Seen]) -> dict[str, Seen]:
    """What a try said, by step."""
    return {line["step"]: line for line in lines if "step" in line}
