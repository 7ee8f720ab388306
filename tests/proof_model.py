"""
What must be in a store, by what processes said that they did, some of which were killed.

Verbs are put in the order in which they were begun. Of those that were never told to have ended
either outcome will do, once: what was seen after a kill has to stay.
"""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

ABSENT = None
Line = dict[str, Any]
Key = tuple[str, str]  # agent, id


class Doing:
    """One verb that was announced, and how it went: done, undone, or None if nobody knows."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.begun: int = line["t"]
        self.went: bool | None = None

    @property
    def verb(self) -> str:
        return str(self.line["verb"])


class Told:
    """The lines of one process, as verbs. Those of one process follow each other."""

    def __init__(self) -> None:
        self.doings: list[Doing] = []
        self._parts: dict[str, Doing] = {}

    def hear(self, line: Line) -> None:
        if "verb" in line:
            doing = Doing(line)
            self.doings.append(doing)
            if "part" in line:
                self._parts[line["part"]] = doing
        elif "part" in line:
            self._parts.pop(line["part"]).went = "done" in line
        elif "done" in line or "error" in line:
            self.doings[-1].went = True if "done" in line else False if line["undone"] else None

    def taken(self) -> list[Doing]:
        """What was told since; at a pause or an end, when nothing is under way."""
        doings, self.doings = self.doings, []
        return doings


class Model:
    """Each thing by agent and id, with the versions in which it may be there."""

    def __init__(self) -> None:
        self.may_be: dict[Key, set[int | None]] = defaultdict(lambda: {ABSENT})
        self.secrets: dict[str, str] = {}  # token: agent
        self.forgotten: set[str] = set()
        self.in_doubt: set[str] = set()  # tokens whose forgetting was cut short
        self._tokens: dict[Key, str] = {}
        self._whole: list[list[Key]] = []  # written all or none, outcome unknown
        self._sessions: dict[Key, set[Key]] = defaultdict(set)
        self.acknowledged = 0

    def apply(self, doings: Iterable[Doing]) -> None:
        for doing in sorted(doings, key=lambda one: one.begun):
            self._apply(doing)

    def _apply(self, doing: Doing) -> None:
        line, agent = doing.line, doing.line.get("agent", "")
        keys = [(agent, ident) for ident in line.get("ids", ())]
        match doing.verb:
            case "save":
                self._settle(keys, 0, doing.went)
                for key in keys:
                    self._note(key, line.get("token"))
                if doing.went is None and len(keys) > 1:
                    self._whole.append(keys)
            case "edit":
                self._settle(keys, line["version"], doing.went)
            case "delete":
                self._touched(keys)
                self._settle(keys, ABSENT, doing.went or None)  # busy: perhaps in part
            case "delete_session":
                session_keys = list(self._sessions[agent, line["session"]])
                self._touched(session_keys)
                self._settle(session_keys, ABSENT, doing.went or None)
            case "forget":
                token = line["token"]
                secret_keys = [key for key, its in self._tokens.items() if its == token]
                self._touched(secret_keys)
                self._settle(secret_keys, ABSENT, doing.went or None)
                (self.forgotten if doing.went else self.in_doubt).add(token)
        self.acknowledged += len(keys) if doing.went else 0

    def _note(self, key: Key, token: str | None) -> None:
        if token is not None:
            self._tokens[key] = token
            self.secrets[token] = key[0]
        elif key[1].startswith("m."):
            _, name, number = key[1].split(".")
            self._sessions[key[0], f"{name}.{int(number) // 40}"].add(key)

    def _settle(self, keys: Iterable[Key], version: int | None, went: bool | None) -> None:
        for key in keys:
            if went:
                self.may_be[key] = {version}
            elif went is None:
                self.may_be[key] = self.may_be[key] | {version}

    def _touched(self, keys: Iterable[Key]) -> None:
        """Somebody took single ones out, so these are not all or none any more."""
        gone = set(keys)
        self._whole = [whole for whole in self._whole if not gone.intersection(whole)]

    def forgot(self, token: str) -> None:
        """What was cut short was done again."""
        self._settle([key for key, its in self._tokens.items() if its == token], ABSENT, True)
        self.in_doubt.discard(token)
        self.forgotten.add(token)

    def compare(self, agent: str, kinds: str, seen: dict[str, str], texts: Any) -> Iterator[str]:
        """
        What is wrong with all that an agent shows of some kinds; what was open is settled by it.

        Args:
            kinds: first letters of ids.
            seen: text by id.
            texts: the text of an id in a version; None where it is not compared.
        """
        expected = {
            ident: versions
            for (whose, ident), versions in self.may_be.items()
            if whose == agent and ident[0] in kinds
        }
        for ident in sorted(seen.keys() - expected.keys()):
            yield f"{agent}: {ident} is there, and nobody ever saved it"
        for ident, versions in expected.items():
            if ident not in seen:
                if ABSENT not in versions:
                    yield f"{agent}: {ident} is lost (acknowledged in version {versions})"
                self.may_be[agent, ident] = {ABSENT}
                continue
            held = [
                version
                for version in versions
                if version is not ABSENT and (texts is None or texts(ident, version) == seen[ident])
            ]
            if not held:
                yield f"{agent}: {ident} is {seen[ident]!r:.80}, which is none of {versions}"
            self.may_be[agent, ident] = set(held)
        mine = [keys for keys in self._whole if keys[0][0] == agent and keys[0][1][0] in kinds]
        for whole in mine:
            if len({ident in seen for _, ident in whole}) > 1:
                yield f"{agent}: of {whole} a part was written"
        self._whole = [keys for keys in self._whole if keys not in mine]


def out_of_order(ids: Iterable[str]) -> list[str]:
    """The ids that stand behind a later one of the same process; by their numbers."""
    last: dict[str, int] = {}
    wrong = []
    for ident in ids:
        _, name, number = ident.split(".")
        if int(number) <= last.get(name, -1):
            wrong.append(ident)
        last[name] = int(number)
    return wrong


def seed_of(name: str, number: int) -> int:
    return zlib.crc32(f"{name} {number}".encode())
