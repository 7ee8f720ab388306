"""Names and places: two names are never one memory, and nothing leaves the store's folder."""

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

import elytron
from elytron import DiskFull, InvalidArgument, Unavailable
from elytron.config import Config
from elytron.ledger.files import Mount, check_name, folder_name, network_type
from elytron.store import ledgers_at
from ledgers import contents, held, names

NAMES = (
    "bob", "Bob", "BOB", "bob ", " bob", "b ob", "bob.", "bob_technique", "Bob Technique",
    "bob-technique", "a/b", "a\\b", "a:b", "../../etc/passwd", "..", ".", "...", "/", "//",
    "/tmp/x", "~", "~root", "C:\\x", "CON", "nul", "nul.txt", "-rf", "--help", "%2e%2e",
    "$HOME", "`id`", "*", "?", "a|b", "a.b", "a.b.", "0", "None", "agent", "ledger.db",
    "elytron.json", "Jos\u00e9", "Jose\u0301", "Jose", "JOS\u00c9", "\ufb01n", "fin", "\u00c5",
    "\u212b", "A\u030a", "ß", "ss", "ẞ", "İ", "i", "ı", "🐞", "🐞🐞", "👩‍👩‍👧", "家", "家族",
    "مرحبا", "علی‌رضا", "नमस्ते", "x" * 300, "x" * 301, "X" * 300, "é" * 300, "🐞" * 300,
    "x" * 1000,
)  # fmt: skip


def test_two_names_are_never_one_memory_and_none_leaves_the_store(tmp_path):
    assert len(set(NAMES)) == len(NAMES)
    with elytron.open(tmp_path / "store") as store:
        for name in NAMES:
            store.agent(name).save("user", f"I am {name!r}", id="me")
        assert store.agents() == sorted(NAMES)
    with elytron.open(tmp_path / "store") as store:
        for name in NAMES:
            assert held(store.agent(name)) == {"me": f"I am {name!r}"}
            assert store.agent(name).usage().agent == name
    assert {path.split("/")[0] for path in names(tmp_path)} == {"store"}
    folders = [path.name for path in (tmp_path / "store" / "agents").iterdir()]
    assert len({folder.casefold() for folder in folders}) == len(NAMES)
    assert all(len(folder) <= 61 for folder in folders)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "must not be empty"),
        ("  ", "must not be empty"),
        ("x" * 1001, "has 1001 characters; at most 1000"),
        ("a\0b", "control character.* at 1"),
        ("a\nb", "control character.* at 1"),
        ("\x1b[31m", "control character.* at 0"),
        ("a\x7f", "control character.* at 1"),
        ("\u202egpj.exe", "control character.* at 0"),
        ("a\ud800", "lone surrogate at 1"),
        (7, "must be a string; got int"),
        (None, "must be a string; got NoneType"),
        (b"bob", "must be a string; got bytes"),
        (Path("bob"), "must be a string; got PosixPath"),
    ],
)
def test_what_is_no_name_is_refused(store, folder, name, complaint):
    with pytest.raises(InvalidArgument, match=complaint):
        store.agent(name)
    assert not folder.exists()


def test_folder_names_are_the_same_on_every_file_system():
    for name in NAMES:
        assert check_name(name) == name
        folder = folder_name(name)
        assert set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert folder[0].isalnum()
        assert folder == folder_name(name)
    assert len({folder_name(name) for name in NAMES}) == len(NAMES)


# -- where a store cannot be


def test_a_store_path_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    for place in (path, path / "store", path / "a" / "b"):
        with pytest.raises(Unavailable, match=r"file is a file.*choose another path"):
            elytron.open(place)
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("place", ["x" * 5000, "a\0b", "loop/store"])
def test_a_store_path_that_cannot_be_is_refused_by_name(tmp_path, place):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Unavailable), elytron.open(tmp_path / place) as store:
        store.agent("bob").save("user", "Hello")
    assert names(tmp_path) == {"loop"}


def test_a_path_of_the_store_may_hold_blanks_accents_and_links(tmp_path):
    (tmp_path / "déjà vu").mkdir()
    (tmp_path / "link").symlink_to("déjà vu")
    with elytron.open(tmp_path / "link" / "new store") as store:
        store.agent("bob").save("user", "Hello", id="one")
    with elytron.open(str(tmp_path / "déjà vu" / "new store")) as store:
        assert held(store.agent("bob")) == {"one": "Hello"}


LEAST = """
import os, sys
import elytron, psutil, yaml
from elytron import *  # all is loaded now: later the interpreter's own files may be out of reach
os.chdir(sys.argv[1])
if os.getuid() == 0:  # root may write anywhere
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
def refused(work):
    try:
        work()
    except elytron.Unavailable as error:
        assert str(error)
        return "Unavailable"
    return "done"
"""


def test_a_folder_that_may_not_be_written_is_refused_and_left_as_it_is(tmp_path, run_script):
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o555)
    script = LEAST + (
        "store = elytron.open('store')\n"
        "bob = store.agent('bob')\n"
        "print(bob.history(), store.agents(), refused(lambda: bob.save('user', 'Hello')))\n"
        "store.close()\n"
    )
    assert run_script(script, place) == "[] [] Unavailable\n"
    assert names(place) == set()


def test_a_store_that_may_only_be_read_is_never_written(tmp_path, run_script):
    place = tmp_path / "place"
    with elytron.open(place / "store") as store:
        store.agent("bob").save("user", "Hello", id="one")
    for path in [place, *place.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = contents(place)
    script = LEAST + (
        "store = elytron.open('store')\n"
        "bob, eve = store.agent('bob'), store.agent('eve')\n"
        "print(store.agents(), eve.history())\n"
        "print(refused(lambda: bob.save('user', 'Hello')), refused(bob.history))\n"
        "print(refused(lambda: eve.save('user', 'Hello')))\n"
        "store.close()\n"
    )
    printed = run_script(script, place).splitlines()
    assert printed[0] == "['bob'] []"
    assert printed[1] in ("Unavailable Unavailable", "Unavailable done")
    assert printed[2] == "Unavailable"
    assert contents(place) == before


@pytest.mark.parametrize("hidden", ["store", "store/agents", "place"])
def test_a_folder_that_may_not_be_entered_is_refused(tmp_path, run_script, hidden):
    place = tmp_path / "place"
    with elytron.open(place / "store") as store:
        store.agent("bob").save("user", "Hello", id="one")
    place.chmod(0o755)
    # Seen from outside, the whole path is walked; from inside, only what is below.
    start = tmp_path.root if hidden == "place" else place
    (place / hidden if hidden != "place" else place).chmod(0o000)
    script = LEAST + (
        "def work():\n"
        "    store = elytron.open(sys.argv[2])\n"
        "    try:\n"
        "        store.agents()\n"
        "        store.agent('bob').save('user', 'Hello')\n"
        "    finally:\n"
        "        store.close()\n"
        "print(refused(work))\n"
    )
    try:
        where = place / "store" if hidden == "place" else "store"
        assert run_script(script, start, where) == "Unavailable\n"
    finally:
        (place / hidden if hidden != "place" else place).chmod(0o755)


MOUNTS = (
    Mount("/", "ext4"), Mount("/mnt/nas", "nfs4"), Mount("/mnt/nas/disk", "xfs"),
    Mount("/mnt/win", "cifs"), Mount("/data", "ext4"), Mount("/cloud", "fuse.rclone"),
    Mount("/over", "nfs"), Mount("/over", "ext4"), Mount("/under", "ext4"), Mount("/under", "9p"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/store", None),
        ("/data/store", None),
        ("/mnt/nas", "nfs4"),
        ("/mnt/nas/store", "nfs4"),
        ("/mnt/nas-other/store", None),
        ("/mnt/nas/disk/store", None),
        ("/mnt/win/a/b/c", "cifs"),
        ("/cloud/store", "fuse.rclone"),
        ("/over/store", None),
        ("/under/store", "9p"),
    ],
)
def test_the_nearest_mount_tells_whether_a_path_is_on_the_network(path, expected):
    assert network_type(Path(path), MOUNTS) == expected
    assert network_type(Path(path), ()) is None


def test_a_network_file_system_is_refused_unless_allowed(tmp_path, monkeypatch):
    mounts = [Mount(str(tmp_path), "nfs4")]
    monkeypatch.setattr("elytron.ledger.files._mounts", lambda: mounts)
    with pytest.raises(Unavailable, match=r"network file system \(nfs4\).*`allow_network_path`"):
        elytron.open(tmp_path / "store")
    assert names(tmp_path) == set()
    with elytron.open(tmp_path / "store", allow_network_path=True) as store:
        store.agent("bob").save("user", "Hello")


def test_a_link_to_a_network_file_system_is_seen_through(tmp_path, monkeypatch):
    (tmp_path / "nas").mkdir()
    (tmp_path / "link").symlink_to("nas")
    mounts = [Mount("/", "ext4"), Mount(str(tmp_path / "nas"), "nfs4")]
    monkeypatch.setattr("elytron.ledger.files._mounts", lambda: mounts)
    with pytest.raises(Unavailable, match="nfs4"):
        elytron.open(tmp_path / "link" / "store")


# -- a full disk


FILL = """
import json, logging, os, sys, elytron
logging.getLogger("elytron").setLevel(logging.ERROR)  # a full disk is told of
place, ballast = sys.argv[1] + "/store", sys.argv[1] + "/ballast"
with open(ballast, "wb") as file:
    file.write(b"x" * (1 << 20))
done, refused = [], 0
with elytron.open(place, wal_limit_mb=1) as store:
    bob = store.agent("bob")
    while refused < 3:
        try:
            done.append(bob.save("user", f"{len(done)} {refused} " + "word " * 2000).id)
        except elytron.DiskFull as error:
            assert "nothing was written" in str(error), error
            refused += 1
    assert [m.id for m in bob.messages()] == done
    try:
        store.agent("eve").save("user", "Hello")
    except elytron.DiskFull:
        pass
    os.unlink(ballast)
    done.append(bob.save("user", "There is room again").id)
with elytron.open(place) as store:
    assert [m.id for m in store.agent("bob").messages()] == done
    store.agent("eve").save("user", "Hello", id="one")
print(len(done) > 20)
"""


def test_a_full_disk_refuses_loudly_and_loses_nothing(tmp_path):
    """On a file system of 4 MB, in a namespace of its own, which needs no root."""
    mount = f"mount -t tmpfs -o size=4m none {tmp_path} && exec"
    inside = ["unshare", "-Urm", "sh", "-c", f'{mount} "$@"', "sh"]
    try:
        subprocess.run([*inside, "true"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this environment lets no small file system be mounted")
    script = [sys.executable, "-W", "error", "-c", FILL, str(tmp_path)]
    done = subprocess.run([*inside, *script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert os.listdir(tmp_path) == []


def test_a_disk_without_any_room_begins_nothing(tmp_path):
    """The file layer refuses every write from the first on, then has room again."""

    class FullDisk(apsw.VFS):
        full = True

        def __init__(self):
            super().__init__("full-disk", "")

        def xOpen(self, name, flags):  # noqa: N802
            return FullFile("", name, flags)

    class FullFile(apsw.VFSFile):
        def xWrite(self, data, offset):  # noqa: N802
            if FullDisk.full:
                raise apsw.FullError
            super().xWrite(data, offset)

    disk = FullDisk()
    with elytron.Store(tmp_path / "store", elytron.Config(), vfs="full-disk") as store:
        bob = store.agent("bob")
        for _ in range(2):
            with pytest.raises(DiskFull, match="nothing was written"):
                bob.save("user", "Hello", id="one")
        assert not bob.exists()
        assert store.agents() == []
        FullDisk.full = False
        assert bob.save("user", "Hello", id="one").new
    disk.unregister()
    with elytron.open(tmp_path / "store") as store:
        assert held(store.agent("bob")) == {"one": "Hello"}


def test_a_relative_path_stays_where_it_was_when_the_program_goes_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with elytron.open("store") as store:
        bob = store.agent("bob")
        bob.save("user", "Before", id="one")
        monkeypatch.chdir("elsewhere")
        assert store.agents() == ["bob"]
        assert store.shown == "store"
        bob.save("user", "After", id="two")
        store.agent("eve").save("user", "Hello", id="one")
        assert held(bob) == {"one": "Before", "two": "After"}
        assert store.backup("kept").failed == ()
    assert list(tmp_path.joinpath("elsewhere").iterdir()) == [tmp_path / "elsewhere" / "kept"]
    with elytron.open(tmp_path / "store") as store:
        assert store.agents() == ["bob", "eve"]
        assert held(store.agent("bob")) == {"one": "Before", "two": "After"}


def test_the_files_of_a_store_on_a_server_stay_where_they_were_too(tmp_path, monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.chdir(tmp_path)
    ledgers = ledgers_at("postgresql://nobody@127.0.0.1:1/none", Config(files_path="kept"))
    assert ledgers.folder == tmp_path / "kept"
    ledgers.close()


def test_a_relative_path_in_a_folder_that_is_gone_is_refused(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(Unavailable):
        elytron.open("store")
