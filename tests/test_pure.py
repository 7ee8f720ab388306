"""Properties of what is pure: text, admission, packing, names, ids, checksums."""

import contextlib
import threading
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from elytron import Config, InvalidArgument, Message
from elytron.ledger import rows
from elytron.ledger.files import folder_name
from elytron.recall import context
from elytron.records import ROLES, Hit
from elytron.text import HASH_BYTES, TERM_MAX, Analyzer, fold, hash_term, split_words
from elytron.write.admission import IdClock, admit

ANALYZER = Analyzer(("english", "french"))
CONFIG = Config()
MAY = datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
ANY_TEXT = some.text(some.characters(), max_size=60)  # lone surrogates among them
WORDS = some.text("abéAÉ 日本नमस्ते🐞'-", max_size=30)


def stems(text: str) -> set[bytes]:
    """The terms of a text alone, without those of a speaker and a date."""
    terms = ANALYZER.document(text, speaker="zzz", at=MAY)
    rest = ANALYZER.document("", speaker="zzz", at=MAY)
    assert terms.endswith(rest)
    own = terms[: len(terms) - len(rest)]
    return {own[at : at + HASH_BYTES] for at in range(0, len(own), HASH_BYTES)}


# -- text


@given(ANY_TEXT)
def test_no_text_is_too_strange_to_be_read(text):
    words = split_words(text)
    assert all(word and not word.isspace() for word in words)
    assert len(ANALYZER.document(text, speaker="a", at=MAY)) % HASH_BYTES == 0
    terms = ANALYZER.query(text, terms_max=5)
    assert len(terms) <= 5
    assert all(len(hashed) == HASH_BYTES for term in terms for hashed in term.hashes)


@given(ANY_TEXT)
@example("𝐁𝐨𝐥𝐝")
def test_folding_twice_is_folding_once(text):
    assert fold(fold(text)) == fold(text)


@given(some.text(max_size=20))
def test_a_term_is_three_bytes_whatever_it_is(term):
    assert len(hash_term(term)) == HASH_BYTES
    assert hash_term(term) == hash_term(term)


@given(WORDS)
def test_a_text_is_found_by_each_of_its_own_words(text):
    held = stems(text)
    for word in split_words(text):
        for term in ANALYZER.query(word, terms_max=1):
            assert held & set(term.hashes) or not held, word


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("She was painting", "painted"),
        ("two violins", "a violin"),
        ("Nous avons mangé des crêpes", "manger une crêpe"),
        ("l'école d'été", "ecole"),
        ("ÉCOLE", "école"),
        ("STRASSE", "straße"),
        ("東京都に住む", "京都"),
        ("こんにちは世界", "世界"),
        ("나는 서울에 산다", "서울"),
        ("สวัสดีชาวโลก", "ชาวโลก"),
        ("नमस्ते दुनिया", "दुनिया"),
        ("мой дом", "дом"),
        ("ＦＵＬＬ width", "full"),
        ("𝐁𝐨𝐥𝐝 claims", "bold"),
        ("ﬁnal oﬀer", "final offer"),
        ("snake_case names", "snake"),
        ("covid19", "COVID19"),
        ("e-mail: bob@example.com", "example"),
    ],
)
def test_a_word_is_found_however_it_is_written(text, question):
    for term in ANALYZER.query(question, terms_max=5):
        assert stems(text) & set(term.hashes), term.word


def test_stop_words_of_the_texts_own_language_are_left_out():
    assert stems("where is the cat") == stems("cat")
    assert stems("où est le chat") == stems("chat")
    assert ANALYZER.query("what did he do to them", terms_max=9) == ()


def test_a_message_is_read_in_its_own_language():
    """`dans` is a stop word in French, and a name in English."""
    assert stems("il est dans la maison") == stems("maison")
    assert len(stems("these are the dans that we know")) == 2


def test_an_endless_word_is_cut():
    assert stems("a" * 100_000) == stems("a" * 64)


def test_an_endless_word_is_remembered_by_what_is_cut_of_it():
    analyzer = Analyzer(("english", "french"))
    for length in (TERM_MAX, TERM_MAX + 1, 100_000):
        word = "ab" * (length // 2) + "c" * (length % 2)
        analyzer.document(f"{word} {word}é", speaker=word, at=datetime.now(UTC))
        analyzer.query(word, terms_max=8)
    known = [word for language in analyzer._languages for word in language._known]
    assert max(map(len, known)) == TERM_MAX


def test_many_threads_share_one_analyzer():
    texts = [f"painting {n} violins and cafés number{n}" for n in range(300)]
    expected, found = [stems(text) for text in texts], []

    def work() -> None:
        fresh = Analyzer(("english", "french"))
        for text, right in zip(texts, expected, strict=True):
            found.append(stems(text) == right)
            fresh.query(text, terms_max=9)

    crew = [threading.Thread(target=work) for _ in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert len(found) == 1200
    assert all(found)


# -- admission

JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | ANY_TEXT,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
ANYTHING = JSON | some.binary(max_size=3) | some.tuples(some.integers()) | some.just(object())
ZONES = some.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = some.datetimes(timezones=some.none() | some.just(UTC) | ZONES)


@given(
    role=some.sampled_from(ROLES) | ANYTHING,
    content=ANY_TEXT | ANYTHING,
    session=some.none() | ANY_TEXT | ANYTHING,
    user=some.none() | ANY_TEXT | ANYTHING,
    at=some.none() | TIMES | ANYTHING,
    metadata=some.none() | some.dictionaries(ANY_TEXT, JSON, max_size=3) | ANYTHING,
    id=some.none() | ANY_TEXT | ANYTHING,
)
def test_admission_lets_through_or_refuses_by_name_and_nothing_else(**members: Any):
    draft = None
    with contextlib.suppress(InvalidArgument):
        draft = admit(**members, config=CONFIG, analyzer=ANALYZER, ids=IdClock())
    if draft is None:
        return
    assert draft.role == members["role"]
    assert draft.content == members["content"]
    assert draft.size_bytes > len(draft.content.encode())
    read = rows.to_datetime(draft.at_us, draft.offset_min)
    if members["at"] is not None:
        assert read == members["at"]
        assert read.utcoffset() == members["at"].utcoffset()
    row = (1, draft.id, draft.session, draft.user, draft.role, draft.metadata, draft.content)
    assert rows.checksum(row) == rows.checksum(row)


# -- ids


@given(some.lists(some.integers(0, 1 << 47), min_size=2, max_size=50))
def test_ids_rise_and_never_repeat_whatever_the_clock_does(times_us):
    clock = IdClock()
    ids = [clock.next(now_us) for now_us in times_us]
    assert ids == sorted(set(ids))
    for made in ids:
        parsed = uuid.UUID(made)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert str(parsed) == made


@given(some.integers(0, 1 << 47))
def test_an_id_tells_when_it_was_made(now_us):
    assert uuid.UUID(IdClock().next(now_us)).int >> 80 == now_us // 1000


def test_ids_of_many_threads_never_repeat():
    clock, made = IdClock(), []

    def work() -> None:
        made.extend(clock.next(1_700_000_000_000_000) for _ in range(2000))

    crew = [threading.Thread(target=work) for _ in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert len(set(made)) == 8000


# -- context


def hit(number: int, content: str, session: str, user: str | None) -> Hit:
    message = Message(
        str(number),
        "user",
        content,
        MAY + timedelta(hours=number * 7 % 5),
        session,
        user,
        {},
        number,
    )
    return Hit(message, 1.0, {}, ())


HITS = some.lists(
    some.tuples(
        some.text("ab\n é", min_size=1, max_size=12),
        some.sampled_from("xyz"),
        some.none() | some.just("al"),
    ),
    max_size=8,
).map(lambda rows: [hit(number, *row) for number, row in enumerate(rows)])
COUNTERS = some.sampled_from(
    [
        None,
        len,
        lambda text: len(text.split()),
        lambda text: text.count("\n"),
        lambda text: 3,
        lambda text: 0,
    ]
)


@given(HITS, some.integers(1, 60), COUNTERS)
def test_a_context_is_within_its_budget_and_in_order(hits, max_tokens, counter):
    packed = context.pack(hits, max_tokens=max_tokens, count_tokens=counter)
    count = counter or context.estimate_tokens
    assert packed.tokens <= max_tokens
    assert packed.tokens == (count(packed.text) if packed.hits else 0)
    assert {hit.message.id for hit in packed.hits} <= {hit.message.id for hit in hits}
    assert packed.text.count("[") == len({hit.message.session for hit in packed.hits})
    for session in {hit.message.session for hit in packed.hits}:
        block = next(b for b in packed.text.split("\n\n") if b.startswith(f"[{session}]"))
        said = [line for line in block.split("\n")[1:] if not line.startswith("    ")]
        assert len(said) == sum(hit.message.session == session for hit in packed.hits)


@given(HITS)
def test_with_room_for_all_all_are_packed(hits):
    packed = context.pack(hits, max_tokens=10_000)
    assert list(packed.hits) == hits


@given(some.text(max_size=200))
def test_an_estimate_is_never_negative_and_grows_with_the_text(text):
    assert 0 <= context.estimate_tokens(text) <= context.estimate_tokens(text + "a")
    assert (context.estimate_tokens(text) == 0) == (text == "")


# -- names and rows


@given(some.lists(some.text(some.characters(codec="utf-8"), min_size=1, max_size=30), unique=True))
def test_no_two_names_share_a_folder(names):
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert folder.isascii()
        assert folder == folder.lower()
        assert set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert 22 <= len(folder) <= 61
        assert folder[0] != "-"


ROW = some.tuples(
    some.integers(), some.text(max_size=9), some.none() | some.integers(), some.text(max_size=9)
)


@given(ROW, ROW)
def test_a_checksum_tells_rows_apart(one, other):
    assert 0 <= rows.checksum(one) < 1 << 32
    if one != other:
        same_text = "\x1f".join(map(str, one)) == "\x1f".join(map(str, other))
        assert same_text or rows.checksum(one) != rows.checksum(other)


@given(some.text(min_size=1, max_size=20), some.integers(0, 159), some.integers(0, 7))
def test_any_single_flipped_bit_changes_the_checksum(text, at, bit):
    data = bytearray(text.encode())
    data[at % len(data)] ^= 1 << bit
    try:
        flipped = data.decode()
    except UnicodeDecodeError:
        return  # no text any more, which the reader has to notice by itself
    assert rows.checksum((1, text)) != rows.checksum((1, flipped))


@given(some.datetimes(datetime(1970, 1, 2), datetime(2999, 1, 1), timezones=ZONES))  # noqa: DTZ001
def test_a_time_survives_its_stay_in_the_ledger(at):
    offset = at.utcoffset()
    read = rows.to_datetime(rows.to_us(at), offset // timedelta(minutes=1))
    assert read.isoformat() == at.isoformat()
