"""A message that is in two places is named by a check, and a repair leaves one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import elytron
from elytron.archive import Archive, Archived
from elytron.archive.copies import Motion, United, twice, unite
from elytron.errors import Conflict
from elytron.ledger import ops
from moved import ALL, archive_of, archived, check_once, healed, held_ids, talk

CONTENTS = {draft["id"]: draft["content"] for draft in talk(30)}
TWICE = "3 messages are in the archive twice"
BOTH = "4 messages are both held and archived"


@pytest.fixture
def bob(folder: Path) -> Iterator[elytron.Agent]:
    """Twenty messages in the archive, and ten in the ledger."""
    with elytron.open(folder, reserve_mb=0, auto_cleanup=False) as store:
        bob = store.agent("bob")
        bob.save_many(talk(20))
        bob.archive(**ALL)
        bob.save_many(talk(10, start=20))
        yield bob


def copies(bob: elytron.Agent, *ids: str) -> list[Archived]:
    return [one for one in archived(bob) if one.message.id in ids]


def put(archive: Archive, some: list[Archived]) -> str:
    """Have messages archived once more, as by a file that was copied back; its segment."""
    (entry,) = archive.write(some)
    archive.publish(add=[entry])
    return entry.name


def named(report: elytron.Checked) -> list[tuple[str, str, bool]]:
    return [(one.part, one.what, one.repaired) for one in report.findings]


def test_messages_that_the_archive_has_twice_are_named_and_one_of_each_is_left(
    bob: elytron.Agent, folder: Path
) -> None:
    put(archive_of(bob), copies(bob, "m2", "m3", "m7"))
    assert bob.usage().archived == 23
    assert named(bob.check()) == [("archive", TWICE, False)]
    report = bob.check(repair=True)
    assert named(report) == [("archive", TWICE, True)]
    assert report.archived == 20
    check_once(bob, CONTENTS)
    assert bob.check().findings == ()
    assert healed(folder) == CONTENTS


def test_of_two_archived_copies_that_differ_the_one_that_is_shown_stays(bob: elytron.Agent) -> None:
    (copy,) = copies(bob, "m3")
    put(archive_of(bob), [copy._replace(message=replace(copy.message, content="Changed"))])
    before = {message.id: message.content for message in bob.messages(archived=True)}
    bob.check(repair=True)
    shown = archive_of(bob).find(["m3"])[0]["m3"].message.content
    assert shown == "Changed"
    check_once(bob, before | {"m3": shown})


def test_a_message_that_one_segment_has_twice_is_left_once(bob: elytron.Agent) -> None:
    (copy,) = copies(bob, "m3")
    other = replace(copy.message, content="Changed")
    put(archive_of(bob), [copy, copy, copy._replace(message=other)])
    assert named(bob.check()) == [("archive", "1 message is in the archive twice", False)]
    assert bob.check(repair=True).ok
    check_once(bob, CONTENTS | {"m3": "Changed"})


def test_messages_that_are_held_and_archived_are_named_and_stay_held(
    bob: elytron.Agent, folder: Path
) -> None:
    some = copies(bob, "m2", "m3", "m4", "m5")
    assert bob.restore(["m2", "m3", "m4", "m5"]).restored == 4
    bob.edit("m3", "Edited since")
    put(archive_of(bob), some)
    assert named(bob.check()) == [("archive", BOTH, False)]
    assert named(bob.check(repair=True)) == [("archive", BOTH, True)]
    check_once(bob, CONTENTS | {"m3": "Edited since"})
    assert {"m2", "m3", "m4", "m5"} <= set(held_ids(bob))
    assert bob.check().findings == ()
    assert healed(folder) == CONTENTS | {"m3": "Edited since"}


def test_what_others_move_just_now_is_in_two_places_and_not_named(
    bob: elytron.Agent, folder: Path
) -> None:
    some = copies(bob, "m2")
    bob.restore(["m2"])
    with (
        elytron.open(folder, reserve_mb=0, auto_cleanup=False) as store,
        store._agents.upkeep.chores("bob") as others,
    ):
        assert others is not None
        others.desk.commit(ops.Move(("segment-of-others",), others.desk.run.begin()))
        put(archive_of(bob), some)
        put(archive_of(bob), copies(bob, "m7"))
        assert bob.check().findings == ()
        others.desk.commit(ops.Moved(("segment-of-others",), others.desk.run.token))
        assert len(bob.check().findings) == 2


# -- which of two copies goes


def test_while_others_move_one_both_stay(bob: elytron.Agent) -> None:
    archive = archive_of(bob)
    other = put(archive, copies(bob, "m2", "m3"))
    assert unite(archive, None, motion=lambda: Motion(frozenset([other]))) == United(0, 2)
    assert unite(archive, ["m2", "m3"]) == United(2, 0)
    assert unite(archive, None) == United(0, 0)


def test_what_a_dead_process_left_gives_way_to_what_is_at_rest(bob: elytron.Agent) -> None:
    archive = archive_of(bob)
    (copy,) = copies(bob, "m3")
    stale = copy._replace(message=replace(copy.message, content="Before it was edited"))
    last = put(archive, [stale])
    assert unite(archive, None, motion=lambda: Motion(yielding=frozenset([last]))) == United(1, 0)
    check_once(bob, CONTENTS)


def test_of_messages_that_are_twice_only_those_asked_for_are_looked_for(bob: elytron.Agent) -> None:
    archive = archive_of(bob)
    put(archive, copies(bob, "m2", "m3"))
    assert twice(archive, ["m3", "m4", "m25"]).places == {"m3": [0, 1]}
    assert twice(archive, []).places == {}
    assert unite(archive, ["m3"]) == United(1, 0)
    assert twice(archive).places == {"m2": [0, 1]}


def test_two_who_take_out_each_others_copy_leave_one(
    bob: elytron.Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one takes out what stays here, just before this one takes out what goes."""
    archive = archive_of(bob)
    first = archive.manifest().entries[0].name
    put(archive, copies(bob, "m2", "m3"))
    plain = Archive.replace
    asked = []

    def late(self: Archive, *arguments: object, **named: object) -> object:
        if not asked:
            asked.append(True)
            assert unite(self, None, motion=lambda: Motion(yielding=frozenset([last]))).removed == 2
        return plain(self, *arguments, **named)  # type: ignore[arg-type]

    last = archive.manifest().entries[1].name
    monkeypatch.setattr(Archive, "replace", late)
    assert unite(archive, None) == United(0, 0)
    assert asked
    assert archive.manifest().names == {first}
    check_once(bob, CONTENTS)


def test_a_segment_whose_like_is_gone_is_not_written_anew(bob: elytron.Agent) -> None:
    archive = archive_of(bob)
    (entry,) = archive.manifest().entries
    with pytest.raises(Conflict, match="replaced"):
        archive.replace([entry], archive.read(entry), needs=["segment-that-is-gone"])
    assert archive.manifest().entries == (entry,)
