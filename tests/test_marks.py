"""What a person says of a message's worth, and what questions do: pins, importance, uses."""

import pytest

import elytron
from elytron import Conflict, Corrupt, InvalidArgument, NotFound
from elytron.importers import import_file
from elytron.upkeep.janitor import Janitor
from ledgers import held, names

# On each kind of store; those marked `here` look at what one of this process has inside.
pytestmark = pytest.mark.contract


def worth(agent: elytron.Agent) -> dict[str, tuple[float, bool]]:
    return {message.id: (message.importance, message.pinned) for message in agent.messages()}


WORTHS = {"plain": (0.5, False), "dear": (0.9, False), "kept": (0.5, True), "both": (0.0, True)}


def save_all(bob: elytron.Agent) -> None:
    bob.save("user", "Nothing was said of it", id="plain")
    bob.save("user", "It is dear", id="dear", importance=0.9)
    bob.save("user", "It is kept", id="kept", pinned=True)
    bob.save("user", "It is kept and of no importance", id="both", importance=0, pinned=True)


def test_what_is_said_at_saving_is_kept_over_reopening(open_store, bob, store):
    save_all(bob)
    assert worth(bob) == WORTHS
    assert bob.usage().pinned == 2
    store.close()
    with open_store() as again:
        assert worth(again.agent("bob")) == WORTHS
        assert [m.pinned for m in again.agent("bob").history()] == [False, False, True, True]
        assert again.agent("bob").get("both").pinned


@pytest.mark.parametrize("way", ["save", "save_many", "submit", "import_"])
def test_every_way_of_saving_takes_a_mark(bob, way):
    message = {"role": "user", "content": "Hello", "id": "one", "importance": 0.25, "pinned": True}
    if way == "save":
        bob.save(**message)
    elif way == "submit":
        bob.submit(**message).result(timeout=30)
    elif way == "save_many":
        bob.save_many([message])
    else:
        bob.import_([message])
    assert worth(bob) == {"one": (0.25, True)}


def test_marks_are_set_and_taken_back_one_by_one(look, bob, store):
    save_all(bob)
    bob.pin("plain")
    bob.pin("dear")
    assert worth(bob)["plain"] == (0.5, True)
    assert worth(bob)["dear"] == (0.9, True), "a pin leaves the importance alone"
    bob.set_importance("both", 1)
    assert worth(bob)["both"] == (1.0, True), "and the other way round"
    for key in WORTHS:
        bob.unpin(key)
        bob.unpin(key)
    assert {pinned for _, pinned in worth(bob).values()} == {False}
    assert worth(bob)["dear"][0] == 0.9
    bob.set_importance("dear", 0.5)
    assert bob.usage().pinned == 0
    store.close()
    marked = {key for (key,) in look("SELECT key FROM marks")}
    assert len(marked) == 2, "`dear` and `both`; what says nothing has no row"


def test_marks_go_with_their_messages(look, bob, store):
    save_all(bob)
    bob.delete("dear")
    bob.delete_session("default")
    bob.save("user", "Again", id="dear")
    assert worth(bob) == {"dear": (0.5, False)}
    store.close()
    assert look("SELECT count(*) FROM marks") == [(0,)]


def test_an_edit_leaves_the_mark_and_a_retry_does_not_set_another(bob):
    save_all(bob)
    bob.edit("kept", "It was edited")
    assert worth(bob)["kept"] == (0.5, True)
    assert not bob.save("user", "It is dear", id="dear", importance=0.1).new
    assert worth(bob)["dear"] == (0.9, False)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), "0.5", True, [], 1 + 1j])
def test_an_importance_that_is_none_is_refused_and_nothing_is_written(bob, value):
    bob.save("user", "Hello", id="one")
    for verb in (
        lambda: bob.set_importance("one", value),
        lambda: bob.save("user", "Bad", importance=value),
        lambda: bob.submit("user", "Bad", importance=value),
        lambda: bob.save_many([{"role": "user", "content": "Bad", "importance": value}]),
        lambda: bob.import_([{"role": "user", "content": "Bad", "importance": value}]),
    ):
        with pytest.raises(InvalidArgument, match="importance"):
            verb()
    assert worth(bob) == {"one": (0.5, False)}


@pytest.mark.parametrize("value", [1, "yes", []])
def test_a_pin_that_is_none_is_refused(bob, value):
    with pytest.raises(InvalidArgument, match="pinned"):
        bob.save("user", "Bad", pinned=value)
    with pytest.raises(InvalidArgument, match="pinned"):
        bob.save_many([{"role": "user", "content": "Bad", "pinned": value}])
    assert not bob.exists()


def test_marking_what_is_not_there_is_refused_and_changes_nothing(bob, store, folder):
    save_all(bob)
    for verb in (bob.pin, bob.unpin, lambda key: bob.set_importance(key, 0.5)):
        with pytest.raises(NotFound, match="'nobody'"):
            verb("nobody")
    with pytest.raises(InvalidArgument):
        bob.pin("")
    assert worth(bob) == WORTHS


@pytest.mark.here
def test_marks_go_through_an_export_and_back(tmp_path, bob, store):
    save_all(bob)
    bob.export(tmp_path / "all.jsonl")
    eve = store.agent("eve")
    import_file(store, tmp_path / "all.jsonl", agent="eve")
    assert worth(eve) == WORTHS
    assert held(eve) == held(bob)


def test_marks_go_through_the_archive_and_back(bob):
    """What is pinned never leaves, so it is unpinned first; restored, it is as it was."""
    save_all(bob)
    bob.set_importance("plain", 0.125)
    bob.archive(older_than_days=0, keep=0)
    assert worth(bob) == {"kept": (0.5, True), "both": (0.0, True)}
    bob.unpin("both")
    bob.archive(older_than_days=0, keep=0)
    archived = {m.id: m.importance for m in bob.messages(archived=True) if m.id != "kept"}
    assert archived == {"plain": 0.125, "dear": 0.9, "both": 0.0}
    bob.restore(["plain", "dear", "both"])
    assert worth(bob) == {
        "plain": (0.125, False), "dear": (0.9, False), "kept": (0.5, True), "both": (0.0, False)
    }  # fmt: skip


@pytest.mark.here
def test_a_pin_in_the_archive_comes_back_as_a_pin(bob, folder):
    """As by a clean-up of a later version, which lets pinned ones leave at the last."""
    bob.save("user", "Hello", id="one", importance=0.75)
    bob.archive(older_than_days=0, keep=0)
    (message,) = bob.messages(archived=True)
    archive = bob._agents.upkeep.archive_of("bob")
    (entry,) = archive.manifest().entries
    (archived,) = archive.read(entry)
    pinned = archived._replace(message=elytron.Message(**{**_members(message), "pinned": True}))
    archive.publish(add=archive.write([pinned]), remove=[entry.name])
    bob.restore("one")
    assert worth(bob) == {"one": (0.75, True)}


def _members(message: elytron.Message) -> dict:
    return {name: getattr(message, name) for name in message.__slots__}


@pytest.mark.parametrize("change", ["importance = 0.1", "pinned = 0", "checksum = checksum + 1"])
def test_a_damaged_mark_is_told_and_never_believed(open_store, look, bob, store, change):
    save_all(bob)
    store.close()
    key = look("SELECT key FROM messages WHERE id = 'kept'")[0][0]
    look(f"UPDATE marks SET {change} WHERE key = {key}")
    with open_store() as again:
        bob = again.agent("bob")
        for verb in (
            lambda: bob.get("kept"),
            bob.history,
            lambda: list(bob.messages()),
            lambda: bob.unpin("kept"),
            lambda: bob.set_importance("kept", 0.2),
        ):
            with pytest.raises(Corrupt, match="mark"):
                verb()
        bob.archive(older_than_days=0, keep=0)
        findings = {finding.part: finding.what for finding in bob.check().findings}
        assert findings.keys() == {"messages", "marks"}
        assert findings["messages"].startswith(f"message row {key} (id 'kept', session")
        assert findings["messages"].endswith("its mark, session or user is damaged")
        assert findings["marks"] == f"row {key} is not what was written"
    still = {key for (key,) in look("SELECT id FROM messages")}
    assert "kept" in still, "what may be pinned does not leave"


def test_reading_verbs_and_marks_of_nobody_make_nothing(folder, store):
    bob = store.agent("bob")
    assert bob.usage().pinned == 0
    assert not folder.exists()


# -- uses


def uses(look) -> dict[str, int]:
    return dict(look("SELECT m.id, u.uses FROM uses u JOIN messages m ON m.key = u.key"))


def test_recalls_are_counted_and_survive_close(open_store, look, bob, store):
    for number, animal in enumerate(["cat", "dog", "owl"]):
        bob.save("user", f"I saw the {animal}", id=animal, session=f"s{number}")
    for _ in range(3):
        assert [hit.message.id for hit in bob.recall("owl")] == ["owl"]
    bob.recall("cat")
    bob.recall("nothing of it")
    store.close()
    assert uses(look) == {"owl": 3, "cat": 1}
    with open_store() as again:
        bob = again.agent("bob")
        bob.recall("owl")
        bob.save("user", "Something", id="other")
    assert uses(look) == {"owl": 4, "cat": 1}


def test_who_only_recalls_writes_nothing(open_store, look, folder, bob, store):
    bob.save("user", "I saw the owl", id="owl")
    store.close()
    before = look("SELECT count(*) FROM uses"), names(folder)
    with open_store() as again:
        again.agent("bob").recall("owl")
    assert (look("SELECT count(*) FROM uses"), names(folder)) == before


def test_uses_of_what_is_gone_are_forgotten(look, bob, store):
    bob.save("user", "I saw the owl", id="owl")
    bob.recall("owl")
    bob.delete("owl")
    store.close()
    assert look("SELECT count(*) FROM uses") == [(0,)]


def test_a_crash_may_lose_uses_and_nothing_else(folder, run_script):
    run_script(
        """
        import os, sys, elytron
        bob = elytron.open(sys.argv[1], reserve_mb=0).agent("bob")
        for number in range(100):
            bob.save("user", f"I saw owl number {number}", id=f"m{number}", importance=0.75)
        for number in range(100):
            bob.recall(f"owl number {number}")
        os._exit(0)
        """,
        folder,
    )
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        assert worth(bob) == {f"m{number}": (0.75, False) for number in range(100)}
        assert bob.check().ok


def test_what_was_of_use_outlasts_what_was_not(open_store, store, bob):
    """All as important and as old; a recall, written at close, is what tells them apart."""
    for number in range(100):
        bob.save("user", f"Fact word{number}", id=f"m{number}", session=f"s{number}")
    for number in (3, 5, 8):
        assert bob.recall(f"word{number}")[0].message.id == f"m{number}"
    store.close()
    with open_store(max_messages_per_agent=50, keep_messages=0) as again:
        bob = again.agent("bob")
        bob.enforce_limits()
        left = set(held(bob))
    assert len(left) == 50
    assert {"m3", "m5", "m8"} <= left
    assert left - {"m3", "m5", "m8"} == {f"m{number}" for number in range(53, 100)}


def test_uses_that_are_not_written_yet_count_too(open_store, monkeypatch):
    """The clean-up reads by a connection of its own; what is counted in memory has to reach it."""
    monkeypatch.setattr(Janitor, "start", lambda _self: None)  # it would be here before the recall
    bob = open_store(max_messages_per_agent=50, keep_messages=0).agent("bob")
    for number in range(50):
        bob.save("user", f"Fact word{number}", id=f"m{number}", session=f"s{number}")
    assert bob.recall("word0")[0].message.id == "m0"
    bob.save("user", "One more", id="new")
    assert bob.usage().archived
    assert "m0" in held(bob)


def test_importing_an_exported_message_with_another_mark_is_no_conflict(bob):
    bob.save("user", "Hello", id="one", importance=0.9)
    report = bob.import_([{"role": "user", "content": "Hello", "id": "one"}])
    assert (report.imported, report.already_held) == (0, 1)
    with pytest.raises(Conflict):
        bob.save("user", "Other", id="one", importance=0.9)
