"""What adapters read back of a session: pages of it, and items that were edited."""

from typing import Any

import pytest

import elytron
from elytron.adapters import openai_items, reading


class TakenBetweenPages:
    """An agent where another deletes the message at which a page ended, so many times."""

    def __init__(self, agent: elytron.Agent, times: int) -> None:
        self._agent = agent
        self._times = times
        self.get = agent.get

    def history(self, session: str, **asked: Any) -> list[elytron.Message]:
        page = self._agent.history(session, **asked)
        if self._times and page:
            self._times -= 1
            self._agent.delete(page[0].id)
        return page


@pytest.fixture
def ten(bob, monkeypatch):
    """An agent with ten messages in a session that is read by threes."""
    monkeypatch.setattr(reading, "PAGE", 3)
    bob.save_many([{"role": "user", "content": f"number {n}", "session": "s"} for n in range(10)])
    return bob


@pytest.mark.parametrize("limit", [None, 6])
def test_a_session_is_read_whole_where_a_page_ended_at_what_is_deleted_meanwhile(ten, limit):
    found = reading.newest(TakenBetweenPages(ten, 1), "s", limit=limit)
    left = [n for n in range(10) if n != 7]
    assert [one.content for one in found] == [f"number {n}" for n in left[-(limit or 9) :]]


def test_a_session_from_which_more_and_more_is_deleted_is_refused(ten):
    ten.save_many([{"role": "user", "content": f"more {n}", "session": "s"} for n in range(10)])
    with pytest.raises(elytron.Busy, match="10 times"):
        reading.newest(TakenBetweenPages(ten, 100), "s")


@pytest.mark.parametrize(
    ("item", "edited"),
    [
        (
            {"type": "function_call_output", "call_id": "c1", "output": "Sunny"},
            {"type": "function_call_output", "call_id": "c1", "output": "Rain"},
        ),
        (
            {"role": "user", "content": [{"type": "input_text", "text": "Sunny"}, {"text": " "}]},
            {"role": "user", "content": [{"type": "input_text", "text": "Rain"}, {"text": " "}]},
        ),
        (
            {"type": "function_call", "name": "weather", "arguments": "{}"},
            {"role": "assistant", "content": "Rain"},
        ),
        ({"type": "unheard_of"}, {"role": "assistant", "content": "Rain"}),
        ({"role": "user", "content": "Sunny"}, {"role": "user", "content": "Rain"}),
    ],
)
def test_an_item_is_the_one_that_was_added_until_its_message_is_edited(bob, item, edited):
    receipt = bob.save(**openai_items.message_of(item, "s"))
    assert openai_items.item_of(bob.get(receipt.id)) == item
    bob.edit(receipt.id, "Rain")
    assert openai_items.item_of(bob.get(receipt.id)) == edited
