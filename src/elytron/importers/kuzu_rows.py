"""
Kuzu rows: what each row of an origin's database becomes here. Pure.

The origin wrote local times without a zone, metadata as JSON text, and roles as they came.
"""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NamedTuple

from elytron.records import ROLES

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROLES = {
    "human": "user",
    "ai": "assistant",
    "agent": "assistant",
    "bot": "assistant",
    "locrit": "assistant",
    "model": "assistant",
}
ROLE = "roles by another name, kept in the metadata as `origin_role`"
TIME = "times that are missing, before 1970 or ahead of the clock"
SENDER = "senders of messages that no user said: those speak by their role"
SESSION_KIND = "session"  # of the memory that holds what a session was called
CONCEPT_KIND = "concept"  # and what a concept is that nothing mentions

Row = Mapping[str, Any]


class Reading(NamedTuple):
    """How rows are read: the zone of their times (None: the local one), and the latest allowed."""

    zone: tzinfo | None
    latest: datetime

    def time(self, text: str | None, left_out: Counter[str] | None = None) -> datetime | None:
        """A time of the origin's; None, and counted, if there is none that may be."""
        found = None
        if text:
            try:
                naive = datetime.fromisoformat(text)
                # The local zone is asked for that moment: summer time counts.
                found = naive.astimezone() if self.zone is None else naive.replace(tzinfo=self.zone)
                if not _EPOCH <= found <= self.latest:
                    found = None
            except (ValueError, OverflowError, OSError):
                found = None
        if found is None and left_out is not None:
            left_out[TIME] += 1
        return found


def reading(zone: tzinfo | None, *, now: datetime, max_future_s: float) -> Reading:
    return Reading(zone, now + timedelta(seconds=max_future_s))


def message(row: Row, how: Reading, left_out: Counter[str]) -> dict[str, Any]:
    """A message as `import_` takes it. What is wrong with its id or text is for that to say."""
    given = str(row["role"] or "")
    metadata = metadata_of(row["metadata"])
    role = given.strip().lower()
    role = _ROLES.get(role, role)
    if role not in ROLES:
        role = "user" if row["user"] else "assistant"
    if role != given:
        metadata["origin_role"] = given
        left_out[ROLE] += 1
    user = row["user"] or None
    if user is not None and role != "user":
        # It says in whose conversation this was said, not who said it.
        user = None
        left_out[SENDER] += 1
    found = {
        "id": row["id"],
        "role": role,
        "content": row["content"],
        "session": row["session_id"] or None,
        "user": user,
        "at": how.time(row["timestamp"], left_out),
        "metadata": metadata or None,
    }
    return {name: value for name, value in found.items() if value is not None or name == "content"}


def metadata_of(text: str | None) -> dict[str, Any]:
    """The object that a text holds as JSON; another text is kept whole, as `origin_metadata`."""
    if not text or not text.strip():
        return {}
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {"origin_metadata": text}
    if isinstance(found, dict):
        return found
    return {} if found is None else {"origin_metadata": found}


def _refuse(name: str) -> None:
    raise ValueError(name)


def share(value: object, default: float) -> float:
    """A number from 0 to 1: what is beyond is cut, what is none is the default."""
    if not isinstance(value, int | float) or value != value:
        return default
    return min(1.0, max(0.0, float(value)))


def memory(row: Row, how: Reading, left_out: Counter[str]) -> dict[str, Any]:
    """A memory as `remember` takes it. It holds from when it was made."""
    created = how.time(row["created_at"], left_out)
    accessed = how.time(row["last_accessed"])
    return {
        "content": row["content"],
        "id": row["id"],
        "importance": share(row["importance"], 0.5),
        "session": row["session"] or None,
        "valid_from": created,
        "metadata": {"last_accessed": accessed.isoformat()} if accessed else None,
    }


def session_memory(row: Row, how: Reading, topics: list[str]) -> dict[str, Any] | None:
    """
    What a session was called and about, as a memory of the kind `session`; None if nothing was
    said of it.
    """
    name, topic = (str(row[key] or "").strip() for key in ("name", "topic"))
    if name in (row["id"], f"Session {row['id']}"):
        name = ""
    content = ": ".join(part for part in (name, topic) if part)
    if not content and not topics:
        return None
    created = how.time(row["created_at"])
    details = {
        "name": name,
        "topic": topic,
        "user_id": row["user_id"] or "",
        "created_at": created.isoformat() if created else "",
    }
    return {
        "content": content or ", ".join(topics),
        "kind": SESSION_KIND,
        "id": f"session:{row['id']}"[:200],
        "session": row["id"],
        "about": tuple(topics),
        "valid_from": created,
        "metadata": {key: value for key, value in details.items() if value},
    }
