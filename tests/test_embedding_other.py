"""Other models, other dimensions, other settings, older ledgers, and no numpy."""

import apsw
import pytest

import elytron
from elytron.embed import policy
from elytron.errors import Conflict, EmbedderUnavailable, InvalidSetting
from elytron.importers import import_file
from elytron.ledger import schema
from elytron.ledger.embedded import DropVectors
from elytron.upkeep import backfill
from embedders import DIM, Hashing, by_hand, check_vectors, covered, query, steps
from ledgers import held, ledger_path

TEXTS = [f"This is a message number {number}." for number in range(9)]


def begin(folder, embedder=None, **settings):
    with elytron.open(folder, embedder=embedder or Hashing(), **settings) as store:
        bob = by_hand(store.agent("bob"))
        for number, text in enumerate(TEXTS):
            bob.save("user", text, id=str(number))
        steps(bob)
        assert len(covered(bob)) == 9


def test_with_another_model_only_what_needs_no_vector_works_until_all_is_made_anew(
    folder, open_store
):
    begin(folder)
    bob = by_hand(open_store(embedder=Hashing(name="other")).agent("bob"))
    for refused in (
        lambda: bob.save("user", "And a later message of mine."),
        lambda: bob.submit("user", "And a later message of mine."),
        lambda: bob.save_many([{"role": "user", "content": "And a later message."}]),
        lambda: bob.recall("number three"),
        lambda: bob.context("number three"),
        lambda: bob.edit("3", "An edited message."),
        bob.embed,
        bob.flush,
    ):
        with pytest.raises(InvalidSetting, match="elytron reembed"):
            refused()
    assert len(bob.history()) == 9
    assert bob.get("3").content == TEXTS[3]
    assert len(list(bob.messages())) == 9
    usage = bob.usage().embeddings
    assert usage.model == "callable:hashing"
    assert "elytron reembed" in usage.last_error
    assert not bob._agents.embed_behind("bob")
    assert bob.reembed().embedded == 9
    assert bob.save("user", "And a later message of mine.").new
    bob.flush()
    assert bob.usage().embeddings.model == "callable:other"
    check_vectors(bob, dim=DIM)
    assert bob.recall("number three")


def test_what_no_embedder_may_see_none_sees_after_an_export_either(folder, tmp_path):
    begin(folder)
    with elytron.open(folder, embedder=Hashing()) as store:
        bob = store.agent("bob")
        bob.save("user", "A secret, to be archived.", id="one", embed=False)
        bob.archive(older_than_days=0, keep=0)
        bob.save("user", "A secret that is held.", id="other", embed=False)
        bob.export(tmp_path / "all.jsonl", archived=True)
        said = list(bob.messages(archived=True))
    for number, pour in enumerate(
        (
            lambda to: import_file(to, tmp_path / "all.jsonl"),
            lambda to: to.agent("all").import_(said),
        )
    ):
        embedder = Hashing()
        with elytron.open(tmp_path / str(number), embedder=embedder) as store:
            pour(store)
            store.agent("all").flush()
            assert sorted(embedder.documents) == sorted(TEXTS)
            secret = {one.id for one in store.agent("all").messages() if one.embed is False}
            assert secret == {"one", "other"}


def test_another_dimension_is_found_out_with_the_first_answer(folder, open_store):
    """A function's dimension is not known before; what was saved until then is kept."""
    begin(folder)
    bob = by_hand(open_store(embedder=Hashing(DIM + 1)).agent("bob"))
    assert bob.save("user", "And a later message of mine.", id="late").new
    with pytest.raises(InvalidSetting, match="elytron reembed"):
        bob._agents.embed_behind("bob")
    check_vectors(bob, dim=DIM)
    assert bob.recall("number three"), "words answer"
    assert bob.save("user", "And one more message of mine.", id="later").new
    with pytest.raises(InvalidSetting, match="elytron reembed"):
        bob.flush()
    assert "elytron reembed" in bob.usage().embeddings.last_error
    bob.delete("later")
    assert bob.reembed().embedded == 10
    check_vectors(bob, dim=DIM + 1)
    bob.flush()
    assert bob.recall("number three")


def test_another_program_with_another_model_writes_no_vector_of_its_own(folder, open_store):
    """Both begin on an empty memory; the first to embed says whose vectors they are."""
    bob = by_hand(open_store(embedder=Hashing()).agent("bob"))
    bob.save("user", TEXTS[0], id="0")
    with elytron.open(folder, embedder=Hashing(name="other")) as store:
        other = by_hand(store.agent("bob"))
        other.save("user", TEXTS[1], id="1")
        with other._agents.use("bob", create=False) as agent:
            begun = agent.embedding.begin()
            rows = agent.embedding.ask(begun)
            steps(bob)
            assert not agent.embedding.finish(begun, rows).applied
            with pytest.raises(Conflict, match="elytron reembed"):
                agent.embedding.finish(begun._replace(page=None), rows)
        with pytest.raises(InvalidSetting, match="elytron reembed"):
            other.embed()
    steps(bob)
    assert set(covered(bob)) == {"0", "1"}
    check_vectors(bob, dim=DIM)


def test_nothing_is_removed_while_the_new_embedder_does_not_answer(folder, open_store):
    begin(folder)
    bob = by_hand(open_store(embedder=Hashing(name="other", fail=refuses)).agent("bob"))
    with pytest.raises(EmbedderUnavailable):
        bob.reembed()
    check_vectors(bob, dim=DIM)
    assert len(covered(bob)) == 9


def refuses(_texts, _kind):
    raise ConnectionError


@pytest.mark.parametrize("calls", range(5))
def test_reembedding_that_is_stopped_anywhere_can_be_run_again(
    folder, open_store, monkeypatch, calls
):
    begin(folder, embed_batch_max=2)
    left = [1 + calls]  # the first is to see that it answers

    def stops(_texts, _kind):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    embedder = Hashing(name="other", fail=stops)
    bob = by_hand(open_store(embedder=embedder, embed_batch_max=2).agent("bob"))
    bob._agents.embeddings.calls._check_rested = lambda kind: None
    monkeypatch.setattr(backfill, "_TRIES", 1)
    with pytest.raises(EmbedderUnavailable):
        bob.reembed()
    check_vectors(bob, dim=DIM)
    assert len(covered(bob)) == 2 * calls
    embedder.fail = None
    embedder.asked.clear()
    made = bob.embed()
    asked = [text for text in embedder.documents if text.startswith("This is")]
    assert len(asked) == 9 - 2 * calls, "only what is missing"
    assert (made.embedded, made.held) == (9 - 2 * calls, 2 * calls)
    assert bob.embed().held == 9
    check_vectors(bob, dim=DIM)


def test_reembedding_that_is_stopped_while_vectors_go_can_be_run_again(folder, open_store):
    begin(folder)
    bob = by_hand(open_store(embedder=Hashing(name="other")).agent("bob"))
    with bob._agents.use("bob", create=False) as agent:
        assert agent.writer.call(DropVectors(4)) == (4, True)
    check_vectors(bob, dim=DIM)
    with pytest.raises(InvalidSetting, match="elytron reembed"):
        bob.embed()
    assert bob.reembed().embedded == 9
    check_vectors(bob, dim=DIM)


def test_progress_is_told_to_the_end(folder, open_store):
    begin(folder)
    bob = by_hand(open_store(embedder=Hashing()).agent("bob"))
    bob.remember("A memory that has one as well.")
    told = []
    bob.embed(on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (10, 10)
    assert told == sorted(told)


def test_switched_on_later_embed_makes_what_is_missing_and_the_background_the_new(
    folder, open_store
):
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        for number, text in enumerate(TEXTS):
            assert bob.save("user", text, id=str(number)).embedding == policy.DISABLED
        bob.save("user", "short", id="short")
        bob.save("system", "This is said by nobody at all.", id="system")
        bob.remember("A memory that has one as well.", id="memory")
        with pytest.raises(InvalidSetting, match="enable_embeddings"):
            bob.embed()
    bob = by_hand(open_store(embedder=Hashing()).agent("bob"))
    bob.save("user", "And a later message of mine.", id="late")
    bob.save("user", "And one that is to have none.", id="none", embed=False)
    steps(bob)
    assert {"late"} <= set(covered(bob)) <= {"late", "memory"}
    made = bob.embed()
    assert made.left_out == {
        policy.TOO_SHORT: 1,
        policy.BY_ROLE: 1,
        policy.DECLINED: 1,
    }
    assert set(covered(bob)) == {*map(str, range(9)), "late", "memory"}
    assert sum(bob.usage().embeddings.reasons.values()) == 13
    check_vectors(bob, dim=DIM)


def test_switched_off_later_words_answer_and_vectors_go_with_their_messages(folder, open_store):
    begin(folder)
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        assert bob.save("user", "And a later message of mine.", id="late").new
        assert bob.recall("number three")
        bob.flush()
        bob.delete("0")
        bob.edit("1", "An edited message, as it is now.")
        check_vectors(bob, dim=DIM)
        assert len(covered(bob)) == 7
    bob = by_hand(open_store(embedder=Hashing()).agent("bob"))
    steps(bob)
    check_vectors(bob, dim=DIM)
    assert bob.usage().embeddings.reasons == {policy.EMBEDDED: 7, policy.DISABLED: 2}
    bob.embed()
    assert set(covered(bob)) == set(held(bob))


def test_who_said_that_a_message_has_no_vector_said_it_of_its_next_text(open_store):
    bob = by_hand(open_store(embedder=Hashing()).agent("bob"))
    bob.save("user", TEXTS[0], id="0", embed=False)
    bob.edit("0", TEXTS[1])
    steps(bob)
    assert covered(bob) == {}
    assert bob.usage().embeddings.reasons == {policy.DECLINED: 1}


def test_a_ledger_of_the_version_before_can_be_embedded(folder, open_store, monkeypatch):
    """It is made by the migrations up to there, which are never edited."""
    with monkeypatch.context() as patch:
        older = schema.MIGRATIONS[:3]
        patch.setattr(schema, "MIGRATIONS", older)
        patch.setattr(schema, "VERSION", 3)
        patch.setattr("elytron.ledger.vectors.any_noted", lambda _db: False)
        with elytron.open(folder) as store:
            bob = store.agent("bob")
            for number, text in enumerate(TEXTS):
                bob.save("user", text, id=str(number))
            bob.remember("A memory that has one as well.", id="memory")
    db = apsw.Connection(str(ledger_path(folder)))
    columns = {row[1] for row in db.execute("PRAGMA table_info(vectors)")}
    version = db.pragma("user_version")
    db.close()
    assert (version, "digest" in columns) == (3, False)
    bob = by_hand(open_store(embedder=Hashing()).agent("bob"))
    assert [message.content for message in bob.messages()] == TEXTS
    bob.embed()
    assert len(covered(bob)) == 10
    check_vectors(bob, dim=DIM)
    assert bob.check().findings == ()
    assert query(bob, "PRAGMA user_version") == [(schema.VERSION,)]


WITHOUT_NUMPY = """
import sys
import importlib.util, importlib.machinery
plain = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in ("numpy", "wordllama") else plain(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
import elytron
from elytron.errors import EmbedderUnavailable
for embedder in (lambda texts, kind: [[1.0, 2.0]] * len(texts), "wordllama", "ollama"):
    try:
        elytron.open(sys.argv[1], embedder=embedder)
    except EmbedderUnavailable as error:
        assert "pip install" in str(error) and "elytron[vectors]" in str(error), error
    else:
        raise AssertionError("opened")
with elytron.open(sys.argv[1]) as store:
    bob = store.agent("bob")
    bob.save("user", "Hello there, Lyon is a town.")
    assert bob.recall("Lyon")
    bob.flush()
    bob.usage()
    assert bob.check().ok
assert "numpy" not in sys.modules
print("done")
"""


def test_without_numpy_all_else_works_and_an_embedder_says_what_to_install(folder, run_script):
    assert run_script(WITHOUT_NUMPY, folder) == "done\n"


def test_nothing_imports_numpy_while_embeddings_are_off(folder, run_script):
    printed = run_script(
        """
        import sys, elytron
        with elytron.open(sys.argv[1]) as store:
            bob = store.agent("bob")
            bob.save("user", "Hello there, Lyon is a town.", id="one")
            bob.remember("Lyon has two rivers.")
            bob.edit("one", "Hello there, Lyon is a large town.")
            bob.flush()
            assert bob.recall("Lyon")
            bob.usage(), store.usage(), bob.check(repair=True)
            bob.archive(older_than_days=0, keep=0)
            bob.restore(["one"])
            bob.delete("one")
            bob.clear()
        print(sorted({"numpy", "urllib3", "wordllama"} & set(sys.modules)))
        """,
        folder,
    )
    assert printed == "[]\n"
