"""
OpenAI items: what the Agents SDK keeps of a conversation, as messages and back.

Apart from `openai_agents.py`, so that a file of such items is imported without the SDK.
"""

import json
from collections.abc import Mapping
from typing import Any

from elytron.adapters import items
from elytron.records import ROLES, Message

ITEM = "openai_item"  # where in a message's metadata its item is
_SPEAKERS = ("system", "developer", "user", "assistant")  # roles that an item may have
# Of an item that is held they have to stay: by them a message that was edited is known.
_WORDS = frozenset(
    "name content text refusal transcript summary arguments input output code query queries"
    " pattern command".split()
)


def message_of(item: Any, session: str) -> dict[str, Any]:
    """What is saved of an item."""
    text = items.dumps(item)
    if _is_plain(item):
        return {"role": item["role"], "content": item["content"], "session": session}
    held: Mapping[str, Any] = item if isinstance(item, Mapping) else {}
    kind = str(held.get("type", "item"))
    return {
        "role": _role(held, kind),
        "content": _searched(item, kind),
        "session": session,
        "metadata": {ITEM: text},
    }


def _is_plain(item: Any) -> bool:
    """Whether an item is no more than a role and a text."""
    return (
        isinstance(item, Mapping)
        and item.keys() == {"role", "content"}
        and item["role"] in _SPEAKERS
        and items.storable(item["content"])
    )


def _searched(item: Any, kind: str) -> str:
    return items.words(items.texts(item, _WORDS), otherwise=f"[{kind}]")


def _role(item: Mapping[str, Any], kind: str) -> str:
    """Who speaks: calls and reasoning are the assistant's, what comes back from calls a tool's."""
    role = item.get("role")
    if isinstance(role, str) and role in ROLES:
        return role
    return "tool" if kind.endswith("_output") else "assistant"


def item_of(message: Message) -> Any:
    """
    The item that a message was made of, or one of its role and text.

    Where the message was edited since, the item has its new text, if it had a single one; else it
    is one of role and text.
    """
    text = message.metadata.get(ITEM)
    if text is not None:
        held = json.loads(text)
        kind = str(held.get("type", "item")) if isinstance(held, Mapping) else "item"
        if message.content == _searched(held, kind):
            return held
        edited = items.with_text(held, _WORDS, message.content)
        if edited is not None:
            return edited
    # What a tool said without a call of its own is no item; the assistant has said it then.
    role = message.role if message.role in _SPEAKERS else "assistant"
    return {"role": role, "content": message.content}
