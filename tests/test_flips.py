"""One flipped bit anywhere in a ledger: an error of ours or a true answer, never anything else."""

import random
from pathlib import Path

import pytest

import elytron
from ledgers import held, ledger_path, wal_path

TEXTS = {
    "one": "My name is Alice and I live in Lyon.",
    "two": "My bicycle was stolen in Nice.",
    "three": "The cat's vet is on 12 May.",
}
FLIPS = 300


def begin(folder: Path) -> tuple[bytes, dict[str, str]]:
    """The bytes of a closed ledger, and what its messages say, by id."""
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        for key, text in TEXTS.items():
            bob.save("user", text, id=key, session="web-42", user="alice")
        bob.save_many(
            {"role": "user", "content": f"Filler {n}", "session": "other"} for n in range(70)
        )
        said = held(bob)
    return ledger_path(folder).read_bytes(), said


def use(bob: elytron.Agent) -> list[elytron.Message]:
    """Every verb once; what was shown before anything was changed."""
    shown: list[elytron.Message] = []
    verbs = (
        lambda: shown.extend(filter(None, [bob.get(key) for key in TEXTS])),
        lambda: shown.extend(bob.history(limit=100)),
        lambda: shown.extend(bob.history("web-42")),
        lambda: shown.extend(hit.message for hit in bob.recall("alice lyon nice vet")),
        lambda: shown.extend(bob.messages()),
        bob.sessions,
        bob.usage,
        lambda: bob.save("user", "New", session="web-42", user="alice"),
        lambda: bob.edit("three", "The vet is in June."),
        bob.reindex,
        lambda: bob.delete("three"),
        lambda: bob.delete_session("other"),
    )
    codes = set()
    for verb in verbs:
        try:
            verb()
        except elytron.ElytronError as error:
            codes.add(error.code)
    assert codes <= {"corrupt", "invalid-setting", "not-found", "unavailable"}
    return shown


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_anywhere_is_an_error_of_ours_or_harmless(folder: Path, seed: int) -> None:
    data, said = begin(folder)
    dice = random.Random(seed)
    told = 0
    used = [at for at in range(len(data)) if data[at]]
    for _ in range(FLIPS // 3):
        damaged = bytearray(data)
        damaged[dice.choice(used)] ^= 1 << dice.randrange(8)
        wal_path(folder).unlink(missing_ok=True)
        wal_path(folder).with_name("ledger.db-shm").unlink(missing_ok=True)
        ledger_path(folder).write_bytes(damaged)
        with elytron.open(folder) as store:
            shown = use(store.agent("bob"))
        for message in shown:
            assert message.content == said[message.id]
            if message.id in TEXTS:
                assert (message.session, message.user) == ("web-42", "alice")
        told += TEXTS.keys() <= {message.id for message in shown}
    assert told > FLIPS // 6, "most of them are harmless"
