"""
Locrits shapes: Elytron's records as the mappings that a Locrits program reads. Pure.

Times are text, local and without a zone, as the origin's were.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from elytron.importers.kuzu_rows import CONCEPT_KIND, SESSION_KIND
from elytron.records import Concept, ConceptDetails, Hit, Memory, Message, Session
from elytron.write.admission import ID_MAX

# Of memories that a migration made of what the origin did not keep as memories.
CARRIERS = (SESSION_KIND, CONCEPT_KIND)
_GAPS = ((0.3, "high"), (0.7, "medium"))  # coverage below which a gap is so called
_TOP = 3
_NOT_EMBEDDED_ROLE = "system"
_NOT_EMBEDDED_CHARS = 20  # and fewer

Row = dict[str, Any]


def session_memory(session_id: str) -> str:
    """The id of the memory that holds what a session was called, if anybody said so."""
    return f"{SESSION_KIND}:{session_id}"[:ID_MAX]


def wants_vector(role: str, content: object, *, asked: bool | None) -> bool:
    """Whether a message is to have a vector, by the origin's rule where nobody *asked*."""
    if asked is not None:
        return bool(asked)
    long = isinstance(content, str) and len(content) > _NOT_EMBEDDED_CHARS
    return long and role != _NOT_EMBEDDED_ROLE


def moment(at: datetime | None) -> str | None:
    """A time as the origin printed it: local, without a zone."""
    return None if at is None else str(at.astimezone().replace(tzinfo=None))


def message(message: Message) -> Row:
    """A message of a conversation."""
    return {
        "id": message.id,
        "role": message.role,
        "content": message.content,
        "timestamp": moment(message.at),
        "metadata": dict(message.metadata),
    }


def message_with_session(held: Message) -> Row:
    return {**message(held), "session_id": held.session}


def found_messages(hits: Sequence[Hit]) -> list[Row]:
    """Hits that are messages, best first; see `similarities`."""
    return [
        {
            "id": hit.message.id,
            "role": hit.message.role,
            "content": hit.message.content,
            "timestamp": moment(hit.message.at),
            "session_id": hit.message.session,
            "similarity_score": similarity,
        }
        for hit, similarity in zip(hits, similarities(hits), strict=True)
    ]


def similarities(hits: Sequence[Hit]) -> list[float]:
    """The score of each hit as a share of the best one's, 0 to 1."""
    best = max((hit.score for hit in hits), default=0.0)
    return [hit.score / best if best > 0 else 0.0 for hit in hits]


def memory(held: Memory) -> Row:
    """A memory. It was made when it began to hold, where a migration said so."""
    created = moment(held.valid_from or held.created)
    told = held.metadata.get("last_accessed")
    accessed = moment(held.last_used)
    if accessed is None and isinstance(told, str):
        accessed = _moment_of(told)
    return {
        "id": held.id,
        "content": held.content,
        "importance": held.importance,
        "created_at": created,
        "last_accessed": accessed or created,
    }


def _moment_of(text: str) -> str | None:
    try:
        return moment(datetime.fromisoformat(text))
    except (ValueError, OverflowError, OSError):
        return None


def found_memories(hits: Sequence[Hit]) -> list[Row]:
    """Hits that are memories, best first; see `similarities`."""
    return [
        {**memory(hit.memory), "similarity_score": similarity}
        for hit, similarity in zip(hits, similarities(hits), strict=True)
        if hit.memory is not None
    ]


def further_memories(memories: Sequence[Memory], *, after: Sequence[Row]) -> list[Row]:
    """Memories that come after those rows. Only their order is known, so it makes their scores."""
    least = after[-1]["similarity_score"] if after else 1.0
    count = len(memories)
    return [
        {**memory(held), "similarity_score": least * (count - place) / (count + 1)}
        for place, held in enumerate(memories)
    ]


def worth_knowing(hits: Sequence[Hit]) -> list[Row]:
    """Messages and memories, the best first, with `type` and `relevance`."""
    rows: list[Row] = []
    for hit, relevance in zip(hits, similarities(hits), strict=True):
        (row,) = found_messages([hit]) if hit.memory is None else found_memories([hit])
        kind = "message" if hit.memory is None else "memory"
        rows.append({"type": kind, **row, "similarity_score": relevance, "relevance": relevance})
    return rows


def concept(held: Concept) -> Row:
    """A concept. Its name is its id: no two have the same."""
    return {
        "id": held.name,
        "name": held.name,
        "type": held.type or "",
        "description": held.description or "",
        "confidence": held.confidence,
        "mentions": held.mentions,
    }


def found_concepts(concepts: Sequence[Concept]) -> list[Row]:
    count = len(concepts)
    return [
        {**concept(held), "similarity_score": (count - place) / count}
        for place, held in enumerate(concepts)
    ]


def concept_details(details: ConceptDetails, related: Iterable[Row]) -> Row:
    return {
        **concept(details.concept),
        "first_mentioned": moment(details.first_at),
        "last_mentioned": moment(details.last_at),
        "context_examples": [
            {
                "content": example.content,
                "timestamp": moment(example.at),
                "role": example.role,
            }
            for example in details.examples
        ],
        "related_concepts": list(related),
    }


def neighbours(details: ConceptDetails) -> list[str]:
    """The names at the other ends of a concept's relations, each once."""
    name = details.concept.name
    ends = [end for r in details.relations for end in (r.source, r.target) if end != name]
    return list(dict.fromkeys(ends))


def session(held: Session, called: Memory | None, user: str | None) -> Row:
    """A session. What it was called is held as a memory, if anybody said so."""
    details: Mapping[str, Any] = called.metadata if called is not None else {}
    return {
        "id": held.id,
        "name": str(details.get("name") or held.id),
        "topic": str(details.get("topic") or ""),
        "created_at": moment(held.first_at),
        "user_id": user or str(details.get("user_id") or ""),
    }


def gap(topic: str, found: Sequence[Concept], threshold: float) -> Row:
    """How well a topic is known: the share of its concepts that are known well."""
    sure = [held for held in found if held.confidence >= threshold]
    coverage = len(sure) / len(found) if found else 0.0
    return {
        "topic": topic,
        "related_concepts_found": len(found),
        "high_confidence_concepts": len(sure),
        "coverage_score": coverage,
        "gap_level": next((level for below, level in _GAPS if coverage < below), "low"),
        "top_related_concepts": [held.name for held in found[:_TOP]],
    }
