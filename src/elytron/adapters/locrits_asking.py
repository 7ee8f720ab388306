"""
Locrits asking: a Locrits program's searches, and what it asks about concepts.

What the names call a vector search goes by words, which finds them in any form and case, by the
concepts that they name, and, where the settings enable embeddings, by vectors too. While the
embedder does not answer, the others do.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from elytron.adapters import locrits_shapes as shapes
from elytron.adapters.locrits_service import Service
from elytron.aio import AsyncAgent
from elytron.errors import InvalidArgument
from elytron.records import Concept, Memory
from elytron.text import folded_words, is_stop_word
from elytron.write.admission import MEMORY, MESSAGE

_LEFT_OUT_TIMES = 4  # hits wanted for each that is given, since some are not to be given
_QUESTION_MAX = 20_000  # characters
_WORDS_MAX = 32  # of a text, that concepts are looked up by
_WORD_MIN = 3  # characters; shorter ones name a concept only if they are all of its name
_NAME_MAX = 200  # characters
_THEME_MIN = 4  # characters of a word that may be a theme
_FREQUENT_MAX = 10
_DEPTH_MAX = 6
_DAYS_MAX = 36_500

Row = shapes.Row


class Asking(Service):
    """Searching messages, memories and concepts."""

    async def search_memories(
        self,
        query: str,
        limit: int = 10,
        use_vector_search: bool = True,  # noqa: ARG002 - the origin's
    ) -> list[Row]:
        """
        The messages that answer a question, best first.

        Args:
            use_vector_search: makes no difference: whether vectors are used is for the settings to
                say (`enable_embeddings`), not for each call.

        Returns:
            `{id, role, content, timestamp, session_id, similarity_score}`, the score from 0 to 1
            as a share of the best one's.
        """
        return await self.vector_search_messages(query, limit)

    async def vector_search_messages(
        self, query: str, limit: int = 10, session_id: str | None = None
    ) -> list[Row]:
        """The same, only in one session if one is given."""
        if limit < 1 or not query.strip():
            return []
        memory = await self._memory()
        hits = await memory.recall(
            query[:_QUESTION_MAX],
            limit=self._rows_max(limit),
            session=session_id,
            kinds=[MESSAGE],
        )
        return shapes.found_messages(hits)

    async def vector_search_memories(
        self, query: str, limit: int = 10, min_importance: float = 0.0
    ) -> list[Row]:
        """
        The memories that answer a question, best first, of at least this importance.

        `{id, content, importance, created_at, last_accessed, similarity_score}`, the score from 0
        to 1 as a share of the best one's.
        """
        if limit < 1 or not query.strip():
            return []
        memory = await self._memory()
        query, most = query[:_QUESTION_MAX], self._rows_max(1 << 30)
        hits = await memory.recall(query, limit=most, kinds=[MEMORY])
        rows = shapes.found_memories(
            [hit for hit in hits if hit.memory and _serves(hit.memory, min_importance)][:limit]
        )
        if len(rows) < limit:
            # A recall ranks the best fifty; of those beyond them that hold a word, some may serve.
            seen = {row["id"] for row in rows}
            rest = await memory.memories(query, limit=most)
            more = [held for held in rest if _serves(held, min_importance) and held.id not in seen]
            rows += shapes.further_memories(more[: limit - len(rows)], after=rows)
        return rows

    async def vector_search_concepts(self, query: str, limit: int = 10) -> list[Row]:
        """
        The concepts that a text names, or whose names its words begin; the nearest first.

        `{id, name, type, description, confidence, mentions, similarity_score}`. By words alone:
        concepts have no vectors.
        """
        if limit < 1:
            return []
        return shapes.found_concepts((await self._concepts_in(query))[:limit])

    async def vector_search_all(self, query: str, limit_per_type: int = 5) -> dict[str, list[Row]]:
        """All three of these searches, by `messages`, `memories` and `concepts`."""
        return {
            "messages": await self.vector_search_messages(query, limit_per_type),
            "memories": await self.vector_search_memories(query, limit_per_type),
            "concepts": await self.vector_search_concepts(query, limit_per_type),
        }

    async def get_contextual_memories(
        self,
        current_message: str,
        limit: int = 5,
        include_session_context: bool = True,
        session_id: str | None = None,
    ) -> list[Row]:
        """
        What is worth knowing when answering a message: messages and memories, the best first.

        Args:
            include_session_context: whether messages of *session_id* may be among them; false
                where the prompt holds that conversation already.

        Returns:
            Their rows with `type`, "message" or "memory", and `relevance`, 0 to 1.
        """
        if limit < 1 or not current_message.strip():
            return []
        left_out = None if include_session_context else session_id
        memory = await self._memory()
        hits = await memory.recall(
            current_message[:_QUESTION_MAX], limit=self._rows_max(_LEFT_OUT_TIMES * limit)
        )
        kept = [
            hit
            for hit in hits
            if (_serves(hit.memory, 0.0) if hit.memory else hit.message.session != left_out)
        ]
        return shapes.worth_knowing(kept[:limit])

    async def recommend_related_concepts(self, content: str, limit: int = 10) -> list[Row]:
        """The concepts that a text names, then those related to them; each with `mentions`."""
        memory = await self._memory()
        named = await self._concepts_in(content)
        found = {held.name: held for held in named}
        for held in named[:limit]:
            details = await memory.concept(held.name)
            for name in shapes.neighbours(details) if details else ():
                if len(found) >= limit:
                    break
                near = await memory.concept(name)
                if near is not None:
                    found.setdefault(near.concept.name, near.concept)
        return [shapes.concept(held) for held in found.values()][: max(0, limit)]

    async def get_memory_insights(self, timeframe_days: int = 30) -> dict[str, Any]:
        """
        What was talked about in the last days.

        Returns:
            `{timeframe_days, total_messages_analyzed, frequent_concepts, content_themes}`:
            concepts as `{name, type, mentions}` with how many of these messages name them, and
            themes as `{theme, count}`: words, and in how many of these messages each stands.
            Reads all messages.

        Raises:
            As `Agent.cypher`.
        """
        if not 0 <= timeframe_days <= _DAYS_MAX:
            raise InvalidArgument(
                f"timeframe_days must be from 0 to {_DAYS_MAX:,}; got {timeframe_days!r:.50}"
            )
        memory = await self._memory()
        since = datetime.now(UTC) - timedelta(days=timeframe_days)
        analyzed, themes = 0, Counter[str]()
        async for message in memory.messages():
            if message.at >= since:
                analyzed += 1
                words = set(folded_words(message.content))
                themes.update([word for word in words if _is_theme(word)])
        frequent = await memory.cypher(
            "MATCH (m:Message)-[:MENTIONS]->(c:Concept) WHERE m.at >= $since"
            " RETURN c.name AS name, c.type AS type, count(m) AS mentions"
            " ORDER BY mentions DESC, name LIMIT 10",
            {"since": since},
        )
        return {
            "timeframe_days": timeframe_days,
            "total_messages_analyzed": analyzed,
            "frequent_concepts": [{**row, "type": row["type"] or ""} for row in frequent],
            "content_themes": [
                {"theme": word, "count": count} for word, count in themes.most_common(_FREQUENT_MAX)
            ],
        }

    async def find_knowledge_gaps(
        self, query_topics: Iterable[str], confidence_threshold: float = 0.5
    ) -> list[Row]:
        """
        How well each of some topics is known, by the concepts that their words name.

        Returns:
            `{topic, related_concepts_found, high_confidence_concepts, coverage_score, gap_level,
            top_related_concepts}`: the score is the share of the concepts whose confidence reaches
            the threshold, 0 if there are none; the level "high", "medium" or "low".
        """
        return [
            shapes.gap(topic, await self._concepts_in(topic), confidence_threshold)
            for topic in query_topics
        ]

    async def get_concept_details(
        self, concept_name: str, concept_type: str | None = None
    ) -> Row | None:
        """
        A concept with when and where it occurs; None if there is none, or not of this type.

        `{id, name, type, description, confidence, mentions, first_mentioned, last_mentioned,
        context_examples, related_concepts}`.
        """
        memory = await self._memory()
        details = await memory.concept(concept_name)
        if details is None:
            return None
        if concept_type is not None and details.concept.type != concept_type:
            return None
        related = await _described(memory, shapes.neighbours(details))
        return shapes.concept_details(details, related)

    async def get_related_concepts(self, concept_name: str, depth: int = 2) -> list[Row]:
        """
        The concepts near one, the nearest first: `{name, type, description}`. Asks the graph.

        Raises:
            As `Agent.related`.
        """
        memory = await self._memory()
        found = await memory.related(concept_name, depth=max(1, min(depth, _DEPTH_MAX)))
        return await _described(memory, [near.name for near in found])

    async def _concepts_in(self, text: str) -> list[Concept]:
        """
        The concepts that a text names: whole names first, the longest first; then those that a
        word of it begins, the most mentioned first.
        """
        memory = await self._memory()
        said = folded_words(text[:_QUESTION_MAX])
        inside = f" {' '.join(said)} "
        words = [word for word in dict.fromkeys(said) if not is_stop_word(word)][:_WORDS_MAX]
        whole: dict[str, Concept] = {}
        begun: dict[str, Concept] = {}
        for word in words:
            for held in await memory.concepts(word, limit=self._rows_max(100)):
                name = " ".join(folded_words(held.name))
                if name and f" {name} " in inside:
                    whole[held.name] = held
                elif len(word) >= _WORD_MIN:
                    begun.setdefault(held.name, held)
        ranked = sorted(whole.values(), key=lambda held: (-len(held.name), held.name))
        rest = [held for name, held in begun.items() if name not in whole]
        return ranked + sorted(rest, key=lambda held: (-held.mentions, held.name))


async def _described(memory: AsyncAgent, names: Iterable[str]) -> list[Row]:
    """`{name, type, description}` of each."""
    found = []
    for name in names:
        details = await memory.concept(name)
        if details is not None:
            row = shapes.concept(details.concept)
            found.append({key: row[key] for key in ("name", "type", "description")})
    return found


def _is_theme(word: str) -> bool:
    return len(word) >= _THEME_MIN and not is_stop_word(word)


def _serves(held: Memory, min_importance: float) -> bool:
    """Whether it matters so much, and carries nothing that the origin did not keep as a memory."""
    return held.importance >= min_importance and held.kind not in shapes.CARRIERS
