"""Examples: what to send to a verb, as the OpenAPI document shows it. A test sends each in turn."""

from collections.abc import Mapping
from typing import Any

# In an order in which each finds what it asks for.
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "save": {
        "role": "user",
        "content": "My name is Alice and I live in Lyon.",
        "session": "web-42",
        "user": "alice",
        "id": "m1",
    },
    "save_many": {
        "messages": [
            {"role": "assistant", "content": "Hello Alice!", "session": "web-42"},
            {"role": "user", "content": "I play the cello.", "session": "web-42", "user": "alice"},
        ]
    },
    "history": {"session": "web-42", "limit": 20},
    "get": {"id": "m1"},
    "sessions": {"limit": 10},
    "recall": {"question": "where does Alice live?", "limit": 8},
    "context": {"question": "where does Alice live?", "max_tokens": 800},
    "remember": {"content": "Alice prefers Python", "about": ["Alice", "Python"]},
    "memories": {"limit": 10},
    "relate": {"source": "Alice", "relation": "lives in", "target": "Lyon"},
    "related": {"name": "Alice", "depth": 2},
    "cypher": {
        "query": "MATCH (c:Concept)<-[:MENTIONS]-(m:Message) RETURN c.name AS name, count(m) AS n"
        " ORDER BY n DESC LIMIT $most",
        "params": {"most": 5},
    },
    "pin": {"id": "m1"},
    "archive": {"older_than_days": 30, "keep": 1000, "dry_run": True},
    "forget": {"user": "alice"},
}
