"""An export's file: what it replaces and what it leaves, in either format, wherever it stands."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elytron import InvalidArgument, Unavailable
from elytron.verbs import exporting
from test_read import fill

FORMATS = ("jsonl", "parquet")
HELD = 600  # more than are written between two words of progress
WAIT_MAX_S = 60


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> str:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return str(request.param)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for exports alone."""
    folder = tmp_path / "exports"
    folder.mkdir()
    return folder


@pytest.fixture
def full(bob):
    fill(bob, HELD)
    return bob


@pytest.fixture
def umask() -> Iterator[None]:
    """New files are not for others, and the group only reads."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def count(path: Path) -> int:
    """How many messages a whole export has."""
    if path.read_bytes()[:4] == b"PAR1":
        parquet: Any = pytest.importorskip("pyarrow.parquet")
        return int(parquet.read_table(path).num_rows)
    return len([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_pipe_is_written_into_and_stays_one(bob, place):
    """Method: the test has it open for both, so that nobody waits; what is written fits in it."""
    fill(bob, 3)
    pipe = place / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        assert bob.export(pipe) == 3
        lines = os.read(reader, 65_536).splitlines()
    finally:
        os.close(reader)
    assert [json.loads(line)["id"] for line in lines] == ["web-0", "web-1", "web-2"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(place) == ["pipe"]


def test_parquet_into_a_pipe_is_refused_with_the_way_out(bob, place):
    fill(bob, 3)
    pipe = place / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # so that nobody waits for one
    try:
        with pytest.raises(InvalidArgument, match=r"no regular file.*choose another.*JSON Lines"):
            bob.export(pipe, format="parquet")
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(place) == ["pipe"]


def test_an_output_that_is_named_by_its_descriptor_is_written_to(store, folder):
    """As `/dev/stdout` in a container, which leads there; root could replace that one."""
    fill(store.agent("bob"), 3)
    store.close()
    done = subprocess.run(
        [sys.executable, "-m", "elytron", "export", "bob", "-o", "/dev/fd/1",
         "--store", str(folder)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=WAIT_MAX_S,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    *lines, told = done.stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["web-0", "web-1", "web-2"]
    assert told == "wrote 3 messages to /dev/fd/1"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_written(full, place, tmp_path, form, there):
    disk = tmp_path / "disk"
    disk.mkdir()
    if there:
        (disk / "bob.out").write_text("the old one")
    link = place / "bob.out"
    link.symlink_to(disk / "bob.out")
    assert full.export(link, format=form) == HELD
    assert link.is_symlink()
    assert names(place) == names(disk) == ["bob.out"]
    assert count(disk / "bob.out") == HELD


@pytest.mark.parametrize("rights", [0o600, 0o664, 0o400])
def test_the_mode_of_the_file_that_is_replaced_is_kept(full, place, umask, form, rights):
    path = place / "bob.out"
    path.write_text("the old one")
    path.chmod(rights)
    assert full.export(path, format=form) == HELD
    assert mode(path) == rights
    assert count(path) == HELD


def test_a_new_file_has_the_mode_that_the_umask_gives(full, place, umask, form):
    path = place / "bob.out"
    assert full.export(path, format=form) == HELD
    assert mode(path) == 0o640


def test_it_is_nobody_else_s_to_read_while_a_private_file_is_replaced(full, place, form):
    path = place / "bob.out"
    path.write_text("the old one")
    path.chmod(0o600)
    seen = []

    def look(_count: int) -> None:
        seen.extend([mode(file) for file in place.iterdir()])

    full.export(path, format=form, on_progress=look)
    assert len(seen) >= 2
    assert set(seen) == {0o600}


def test_two_exports_to_one_file_at_once_are_both_whole(full, place, form):
    """Method: the second one runs from its beginning to its end in the middle of the first."""
    path = place / "bob.out"
    inner = []

    def export_again(_count: int) -> None:
        if not inner:
            inner.append(full.export(path, format=form))
            inner.append(count(path))

    assert full.export(path, format=form, on_progress=export_again) == HELD
    assert inner == [HELD, HELD]
    assert count(path) == HELD
    assert names(place) == ["bob.out"]


def test_a_file_of_the_user_s_beside_it_is_left_alone(full, place, form):
    (place / "bob.out.part").write_text("mine")
    full.export(place / "bob.out", format=form)
    assert names(place) == ["bob.out", "bob.out.part"]
    assert (place / "bob.out.part").read_text() == "mine"


def test_it_is_on_the_disk_before_it_takes_its_place(full, place, monkeypatch, form):
    path = place / "bob.out"
    path.write_text("the old one")
    steps = []

    def sync_file(descriptor: int) -> None:
        steps.append(("file", path.read_bytes() == b"the old one"))
        sizes.append(os.fstat(descriptor).st_size)

    def sync_folder(folder: Path) -> None:
        steps.append((folder.name, path.read_bytes() == b"the old one"))

    sizes: list[int] = []
    monkeypatch.setattr(exporting, "sync_file", sync_file)
    monkeypatch.setattr(exporting, "sync_folder", sync_folder)
    full.export(path, format=form)
    assert steps == [("file", True), ("exports", False)]
    assert sizes == [path.stat().st_size], "all of it was written by then"


def test_a_failure_leaves_the_old_one_and_is_told_whatever_else_fails(
    full, place, monkeypatch, form
):
    path = place / "bob.out"
    path.write_text("the old one")

    def stop(_count: int) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        full.export(path, format=form, on_progress=stop)
    assert names(place) == ["bob.out"]
    assert path.read_text() == "the old one"

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RuntimeError, match="stopped"):
        full.export(path, format=form, on_progress=stop)


@pytest.mark.parametrize(
    ("number", "told"), [(errno.EACCES, False), (errno.ENOTSUP, False), (errno.EIO, True)]
)
def test_a_folder_that_cannot_be_synced_fails_nothing_but_a_bad_disk_does(
    full, place, monkeypatch, number, told
):
    def refuse(_folder: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(exporting, "sync_folder", refuse)
    if told:
        with pytest.raises(Unavailable, match="look at the disk"):
            full.export(place / "bob.out")
    else:
        assert full.export(place / "bob.out") == HELD
    assert count(place / "bob.out") == HELD


def test_a_name_as_long_as_the_system_allows_works(full, place, form):
    name = "é" * 127  # 254 bytes
    assert full.export(place / name, format=form) == HELD
    assert names(place) == [name]
