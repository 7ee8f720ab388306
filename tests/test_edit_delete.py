"""Editing and deleting: what goes, goes from everywhere; what stays, stays as it was."""

import pytest

from elytron import Conflict, NotFound
from elytron.ledger.schema import DELETE, MESSAGE
from elytron.text import HASH_BYTES
from ledgers import check_index, contents, held, state, terms_of

# On each kind of store; those marked `here` look at what one of this process has inside.
pytestmark = pytest.mark.contract


def fill(bob, count, **members):
    bob.save_many(
        {"role": "user", "content": f"Number {n}", "id": f"id-{n}"} | members for n in range(count)
    )


def test_an_edited_message_is_found_by_its_new_words_and_not_by_the_old(bob):
    bob.save("user", "I live in Lyon", id="one", session="web", user="alice")
    bob.edit("one", "I moved to Marseille")
    assert bob.recall("Lyon") == []
    (hit,) = bob.recall("Marseille")
    assert hit.message.content == "I moved to Marseille"


def test_an_edit_changes_the_content_and_nothing_else(bob):
    fill(bob, 3, session="web", user="alice", metadata={"a": 1})
    before = list(bob.messages())
    bob.edit("id-1", "Edited")
    after = list(bob.messages())
    assert [m.content for m in after] == ["Number 0", "Edited", "Number 2"]
    for old, new in zip(before, after, strict=True):
        for member in ("id", "role", "at", "session", "user", "metadata", "position"):
            assert getattr(old, member) == getattr(new, member)


def test_an_edited_message_is_still_found_by_its_speaker_and_its_date(bob):
    fill(bob, 3, session="web", user="alice")
    bob.edit("id-1", "Edited")
    assert {hit.message.id for hit in bob.recall("alice")} == {"id-0", "id-1", "id-2"}


def test_an_edit_is_there_after_reopening(open_store):
    store = open_store()
    fill(store.agent("bob"), 2)
    store.agent("bob").edit("id-1", "Edited")
    store.close()
    assert held(open_store().agent("bob")) == {"id-0": "Number 0", "id-1": "Edited"}


def test_after_an_edit_the_id_stands_for_the_new_content(bob):
    fill(bob, 1)
    bob.edit("id-0", "Edited")
    assert bob.save("user", "Edited", id="id-0").new is False
    with pytest.raises(Conflict):
        bob.save("user", "Number 0", id="id-0")


@pytest.mark.parametrize("begun", [False, True])
def test_editing_what_is_not_there_changes_nothing(bob, begun, folder):
    if begun:
        fill(bob, 1)
    with pytest.raises(NotFound, match="no message has the id 'gone'; nothing was changed"):
        bob.edit("gone", "New")
    assert folder.exists() == begun
    assert held(bob) == ({"id-0": "Number 0"} if begun else {})


def test_a_deleted_message_is_gone_from_every_reading_verb(bob):
    fill(bob, 3, session="web")
    assert bob.delete("id-1") is True
    assert bob.get("id-1") is None
    assert list(held(bob)) == ["id-0", "id-2"]
    assert [m.id for m in bob.history("web")] == ["id-0", "id-2"]
    assert {hit.message.id for hit in bob.recall("number")} == {"id-0", "id-2"}
    assert bob.usage().messages == 2
    assert bob.sessions()[0].messages == 2


@pytest.mark.parametrize("begun", [False, True])
def test_deleting_what_is_not_there_is_harmless(bob, begun, folder):
    if begun:
        fill(bob, 1)
    before = state(bob)
    assert bob.delete("gone") is False
    assert bob.delete_session("gone") == 0
    assert state(bob) == before
    assert folder.exists() == begun


def test_deleting_twice_says_so(bob):
    fill(bob, 1)
    assert [bob.delete("id-0"), bob.delete("id-0")] == [True, False]


def test_a_deleted_id_may_be_used_again_for_another_content(bob):
    fill(bob, 2)
    bob.delete("id-0")
    assert bob.save("assistant", "Something else", id="id-0").new is True
    assert held(bob) == {"id-1": "Number 1", "id-0": "Something else"}


def test_a_message_saved_after_a_deletion_comes_last(bob):
    fill(bob, 3, session="web")
    bob.delete("id-2")
    bob.save("user", "Last", id="last", session="web")
    assert [m.id for m in bob.history("web")] == ["id-0", "id-1", "last"]
    bob.delete("id-0")
    bob.save("user", "Very last", id="very last", session="web")
    assert [m.id for m in bob.history("web")] == ["id-1", "last", "very last"]


def delete_and_edit_away(store, secret):
    bob = store.agent("bob")
    fill(bob, 50)
    bob.save("user", f"It is {secret}, not less", id="deleted", metadata={"note": secret})
    bob.save("user", f"Once more: {secret}", id="edited")
    bob.delete("deleted")
    bob.edit("edited", "Nothing to see")
    store.close()


@pytest.mark.files
def test_a_deleted_text_is_in_no_file_any_more(store, folder):
    """Asked of the bytes on disk, once everything is closed and checkpointed."""
    delete_and_edit_away(store, "xylophone-quartz")
    assert not [name for name, data in contents(folder).items() if b"xylophone-quartz" in data]


@pytest.mark.files
@pytest.mark.parametrize("verb", ["delete", "edit", "delete_session"])
def test_the_words_of_a_deleted_text_are_in_no_file_any_more(open_store, folder, verb):
    """What is indexed are hashes of stems: of so many words they tell who said what."""
    text = " ".join(f"xylo{n}phone" for n in range(20))
    terms = terms_of(text)
    assert len(terms) == 20 * HASH_BYTES

    def seen() -> set[bytes]:
        files = contents(folder).values()
        return {mark for mark in (terms, b"xylo7phone") if any(mark in data for data in files)}

    with open_store() as store:
        bob = store.agent("bob")
        bob.save("user", text, id="secret", session="secret")
        fill(bob, 1000)  # so that it stands in the index by now
    assert len(seen()) == 2
    with open_store() as store:
        bob = store.agent("bob")
        assert bob.recall("xylo7phone")
        getattr(bob, verb)(*{"edit": ("secret", "Nothing to see")}.get(verb, ("secret",)))
        assert not bob.recall("xylo7phone")
    assert seen() == set()
    check_index(folder)


@pytest.mark.files
@pytest.mark.parametrize("times", [1, 2, 3, 4])
@pytest.mark.parametrize("verb", ["delete", "edit", "delete_session", "archive"])
def test_a_name_that_only_erased_texts_had_is_in_no_file_any_more(store, folder, verb, times):
    """Said once or twice it is noted as heard, oftener it is proposed as a concept."""
    bob = store.agent("bob")
    fill(bob, 3)
    for n in range(times):
        bob.save("user", f"I met Zorblax in {n} bars", id=f"secret-{n}", session="secret")
    bob.flush()
    assert [concept.name for concept in bob.concepts()] == ["Zorblax"] * (times >= 3)
    if verb == "archive":
        bob.archive(older_than_days=0, keep=0)
    if verb == "delete_session":
        bob.delete_session("secret")
    for n in range(times if verb != "delete_session" else 0):
        if verb == "edit":
            bob.edit(f"secret-{n}", "Nothing to see")
        else:
            bob.delete(f"secret-{n}")
    assert bob.check().ok
    store.close()
    assert not [name for name, data in contents(folder).items() if b"orblax" in data]


def test_a_proposed_concept_stays_as_long_as_another_text_names_it(store):
    bob = store.agent("bob")
    for n in range(3):
        bob.save("user", f"I met Zorblax in {n} bars", id=f"id-{n}")
    bob.flush()
    bob.delete("id-2")
    bob.edit("id-1", "Nothing to see")
    bob.flush()
    assert [(one.name, one.mentions) for one in bob.concepts()] == [("Zorblax", 1)]
    bob.delete("id-0")
    assert bob.concepts() == []


def test_what_was_told_of_a_name_stays_when_the_texts_go(store):
    """A fact about it was told, and the concept itself confirmed by that."""
    bob = store.agent("bob")
    for n in range(3):
        bob.save("user", f"I met Zorblax in {n} bars", id=f"id-{n}")
    bob.flush()
    bob.relate("Zorblax", "lives in", "Lyon")
    for n in range(3):
        bob.delete(f"id-{n}")
    assert {concept.name for concept in bob.concepts()} == {"Zorblax", "Lyon"}
    assert len(bob.relations()) == 1


def test_a_deleted_session_is_gone_and_the_others_stay(bob):
    for session in ("web", "phone"):
        for n in range(3):
            bob.save("user", f"Number {n} by {session}", session=session, id=f"{session}-{n}")
    assert bob.delete_session("web") == 3
    assert [session.id for session in bob.sessions()] == ["phone"]
    assert list(held(bob)) == ["phone-0", "phone-1", "phone-2"]
    assert bob.history("web") == []
    assert {hit.message.session for hit in bob.recall("number")} == {"phone"}
    assert bob.usage().sessions == 1


@pytest.mark.parametrize("count", [499, 500, 501, 1000, 1201])
def test_a_session_of_any_length_is_deleted_whole(bob, count):
    """Deletion goes in steps of 500: one less, exactly, one more, and over a thousand."""
    fill(bob, count, session="long")
    bob.save("user", "I stay", session="other", id="other")
    assert bob.delete_session("long") == count
    assert list(held(bob)) == ["other"]
    assert bob.delete_session("long") == 0
    assert [session.id for session in bob.sessions()] == ["other"]


def test_a_deleted_session_can_be_begun_anew(bob):
    fill(bob, 3, session="web")
    bob.delete_session("web")
    bob.save("user", "Anew", session="web", id="anew")
    (session,) = bob.sessions()
    assert (session.id, session.messages) == ("web", 1)
    assert bob.get("anew").position == 0


def test_a_session_whose_messages_were_all_deleted_is_not_listed(bob):
    fill(bob, 2, session="web")
    bob.delete("id-0")
    bob.delete("id-1")
    assert bob.sessions() == []
    assert bob.history("web") == []


def test_deleting_a_session_of_long_messages_keeps_the_log_within_its_limit(open_store):
    """Each deleted page is overwritten with zeros, so it goes through the log as well."""
    bob = open_store(wal_limit_mb=1).agent("bob")
    for n in range(12):
        bob.save("user", f"{n} " + "word " * 40_000, session="long")
    assert bob.usage().bytes.wal <= 1.3 * (1 << 20)
    bob.delete_session("long")
    assert bob.usage().bytes.wal <= 1.3 * (1 << 20)


def test_the_change_list_tells_of_deletions(open_store, look):
    store = open_store()
    bob = store.agent("bob")
    fill(bob, 2)
    store.close()
    keys = dict(look("SELECT id, key FROM messages"))
    store = open_store()
    store.agent("bob").delete("id-0")
    store.close()
    newest = look("SELECT op, kind, key FROM changes ORDER BY seq DESC LIMIT 1")
    assert newest == [(DELETE, MESSAGE, keys["id-0"])]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 200])
def test_what_is_found_does_not_hang_on_when_the_index_was_written(store, check_words, count):
    """The index is written in lumps; messages are edited and deleted on both sides of it."""
    bob = store.agent("bob")
    for n in range(count):
        bob.save("user", f"apple{n} shared", id=f"id-{n}", session=f"s{n}")
        if n % 3 == 1:
            bob.edit(f"id-{n}", f"banana{n} shared")
        if n % 7 == 6:
            bob.delete(f"id-{n - 3}")
    expected = held(bob)
    for n in range(count):
        for word in (f"apple{n}", f"banana{n}"):
            found = {hit.message.id for hit in bob.recall(word)}
            wanted = {key for key, text in expected.items() if text.startswith(f"{word} ")}
            assert found == wanted, word
    assert {hit.message.id for hit in bob.recall("shared", limit=1000)} == set(expected)
    store.close()
    check_words()
