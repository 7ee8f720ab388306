"""
Anthropic: Claude's memory tool on an agent's memory instead of a folder.

Each version of a file is a memory of its own, whose id follows from the version before it. So of
two who change the same version, in one process or in several, the second is refused by the ledger
and looks again: nothing is overwritten unseen.
"""
# mypy: disable-error-code="import-not-found, misc"

import hashlib
import json
import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from anthropic.lib.tools import BetaAbstractMemoryTool, BetaAsyncAbstractMemoryTool, ToolError

from elytron.adapters import items, threads
from elytron.adapters.anthropic_texts import (
    ROOT,
    directories,
    inserted,
    listing,
    numbered,
    place,
    replaced,
)
from elytron.agent import Agent
from elytron.errors import Busy, Conflict, InvalidArgument, NotFound
from elytron.records import Memory

if TYPE_CHECKING:
    from anthropic.types.beta import (
        BetaMemoryTool20250818CreateCommand as Create,
    )
    from anthropic.types.beta import (
        BetaMemoryTool20250818DeleteCommand as Delete,
    )
    from anthropic.types.beta import (
        BetaMemoryTool20250818InsertCommand as Insert,
    )
    from anthropic.types.beta import (
        BetaMemoryTool20250818RenameCommand as Rename,
    )
    from anthropic.types.beta import (
        BetaMemoryTool20250818StrReplaceCommand as StrReplace,
    )
    from anthropic.types.beta import (
        BetaMemoryTool20250818ViewCommand as View,
    )

_T = TypeVar("_T")
_log = logging.getLogger("elytron.adapters")
KIND = "memory file"
SESSION = "memory files"
FILES_MAX = 1000
TOTAL_MAX_KB = 4096  # of all files; each command reads them
_TRIES_MAX = 100  # others that change the same file at the same moment
_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)  # when all begin to hold, so no clock has a say


@dataclass(frozen=True, slots=True)
class _File:
    id: str
    write: str
    text: str

    @property
    def next_id(self) -> str:
        """
        The id of the version after this one, whoever writes it.

        Made from the write too: a file that was moved away, and made again, has the id that the
        one before it had.
        """
        return _hashed(f"{self.id} {self.write} next")

    @property
    def size_bytes(self) -> int:
        return len(self.text.encode(errors="surrogatepass"))


class _Files:
    """The files below `/memories`, by their places."""

    def __init__(self, agent: Agent) -> None:
        self._agent: Agent = threads.check_synchronous(agent, "remember", "an agent")
        self._mutex = threading.Lock()  # spares those of one tool the looking again

    def view(self, command: "View") -> str:
        at, files = place(command.path), self._read()
        if at in files:
            return numbered(files[at].text, command.path, command.view_range)
        if at not in directories(files):
            raise ToolError(_missing(command.path))
        sizes = {name: file.size_bytes for name, file in files.items()}
        return listing(sizes, at, command.path)

    def create(self, command: "Create") -> str:
        at = place(command.path)

        def step() -> str:
            files = self._read()
            if at in files or at in directories(files):
                raise ToolError(f"File {command.path} already exists")
            _check_parents(at, files)
            self._write(files, at, command.file_text, None)
            return f"File created successfully at: {command.path}"

        return self._until_undisturbed(step)

    def str_replace(self, command: "StrReplace") -> str:
        at = place(command.path)

        def step() -> str:
            files = self._read()
            file = _file(files, at, command.path)
            text, said = replaced(file.text, command.old_str, command.new_str, command.path)
            self._write(files, at, text, file)
            return said

        return self._until_undisturbed(step)

    def insert(self, command: "Insert") -> str:
        at = place(command.path)

        def step() -> str:
            files = self._read()
            file = _file(files, at, command.path)
            text = inserted(file.text, command.insert_line, command.insert_text)
            self._write(files, at, text, file)
            return f"The file {command.path} has been edited."

        return self._until_undisturbed(step)

    def delete(self, command: "Delete") -> str:
        at = place(command.path)
        if not at:
            raise ToolError(f"Cannot delete the {ROOT} directory itself")
        with self._mutex:
            found = self._delete(at)
            if not found:
                raise ToolError(f"The path {command.path} does not exist")
            for _ in range(_TRIES_MAX):  # what others changed or made there meanwhile goes too
                if not self._delete(at):
                    return f"Successfully deleted {command.path}"
        raise Busy(f"others changed what was to be deleted {_TRIES_MAX} times; delete again")

    def rename(self, command: "Rename") -> str:
        old, new = place(command.old_path), place(command.new_path)
        if not old:
            raise ToolError(f"Cannot rename the {ROOT} directory itself")

        begun = False

        def step() -> str:
            nonlocal begun
            files = self._read()
            moved = _within(files, old)
            if not begun:  # else the destination is there because we have made it
                if new in files or new in directories(files):
                    raise ToolError(f"The destination {command.new_path} already exists")
                if not moved:
                    raise ToolError(f"The path {command.old_path} does not exist")
                if new.startswith(f"{old}/"):
                    raise ToolError(f"Cannot rename {command.old_path} to a path inside itself")
                _check_parents(new, files)
            for name in moved:
                begun = len(moved) > 1
                file = files[name]
                self._write({}, new + name[len(old) :], file.text, file)
            return f"Successfully renamed {command.old_path} to {command.new_path}"

        return self._until_undisturbed(step)

    def clear(self) -> str:
        self._agent.forget(session=SESSION)
        return "All memory cleared"

    # -- memories

    def _read(self) -> dict[str, _File]:
        found = self._agent.memories(kind=KIND, session=SESSION, limit=FILES_MAX + 1)
        files: dict[str, _File] = {}
        for memory in reversed(found):  # the oldest first
            name = memory.metadata["path"]
            while name in files:  # two processes moved two files to one place at once
                name += "~"
            files[name] = _File(memory.id, memory.metadata["write"], _text(memory))
        return files

    def _write(self, files: dict[str, _File], at: str, text: str, before: _File | None) -> None:
        """
        Write a file, new or in the place of what it was.

        Raises:
            Conflict, NotFound: somebody was quicker. Nothing was written.
        """
        _check_room(files, at, text)
        plain = items.storable(text)
        # The number says whose write it is: another's with the same text is another's.
        held = {"path": at, "write": uuid.uuid4().hex}
        try:
            self._agent.remember(
                text if plain else items.words([text], otherwise="-"),
                kind=KIND,
                session=SESSION,
                valid_from=_LONG_AGO,
                metadata=held if plain else {**held, "text": items.dumps(text)},
                id=self._first_id(at) if before is None else before.next_id,
                replaces=None if before is None else before.id,
            )
        except InvalidArgument as error:
            raise ToolError(f"The file cannot be held: {error}") from error
        if before is not None:
            self._agent.delete_memory(before.id)

    def _first_id(self, at: str) -> str:
        """The id of a new file: the same for all who make it now, so that one of them does."""
        known = _hashed(at)
        while (left := self._agent.get_memory(known)) is not None and left.valid_to is not None:
            # Of a change that was stopped before its end.
            known = _hashed(f"{left.id} {left.metadata['write']} anew")
        return known

    def _delete(self, at: str) -> bool:
        """Delete a file or what is in a directory; whether anything was there."""
        files = self._read()
        found = _within(files, at)
        for name in found:
            self._agent.delete_memory(files[name].id)
        return bool(found)

    def _until_undisturbed(self, step: Callable[[], _T]) -> _T:
        with self._mutex:
            for _ in range(_TRIES_MAX):
                try:
                    return step()
                except (Conflict, NotFound) as error:
                    _log.debug("a memory file was changed meanwhile: %s", error.code)
        raise Busy(f"others changed the file {_TRIES_MAX} times meanwhile; try again")


class ElytronMemoryTool(BetaAbstractMemoryTool):
    """
    Claude's memory tool, held by one agent.

    Answers as the tool on files that comes with Anthropic's package. A change of a file is one
    commit, and two who change one file at once both succeed or the second is told why not; moving
    a directory is a commit for each file. There are no empty directories. The files are memories:
    `recall` finds them, no limit archives them.

    Limits: 1,000 files, 4 MB together, and `max_message_kb` each. Beyond, Claude is told.
    """

    def __init__(self, agent: Agent, *, cache_control: Any = None) -> None:
        """
        Args:
            agent: whose memory it is, from `store.agent(name)`.
            cache_control: as Anthropic's package has it.
        """
        super().__init__(cache_control=cache_control)
        self._files = _Files(agent)

    def view(self, command: "View") -> str:
        """A file with line numbers, or what is in a directory."""
        return self._files.view(command)

    def create(self, command: "Create") -> str:
        """Make a file."""
        return self._files.create(command)

    def str_replace(self, command: "StrReplace") -> str:
        """Replace what occurs once in a file."""
        return self._files.str_replace(command)

    def insert(self, command: "Insert") -> str:
        """Insert lines into a file."""
        return self._files.insert(command)

    def delete(self, command: "Delete") -> str:
        """Delete a file, or a directory with all that is in it."""
        return self._files.delete(command)

    def rename(self, command: "Rename") -> str:
        """Move a file or a directory."""
        return self._files.rename(command)

    def clear_all_memory(self) -> str:
        """Erase all files for good."""
        return self._files.clear()


class ElytronAsyncMemoryTool(BetaAsyncAbstractMemoryTool):
    """`ElytronMemoryTool` for asyncio."""

    def __init__(self, agent: Agent, *, cache_control: Any = None) -> None:
        """See `ElytronMemoryTool`."""
        super().__init__(cache_control=cache_control)
        self._files = _Files(agent)

    async def view(self, command: "View") -> str:
        """See `ElytronMemoryTool.view`."""
        return await threads.run(lambda: self._files.view(command))

    async def create(self, command: "Create") -> str:
        """See `ElytronMemoryTool.create`."""
        return await threads.run(lambda: self._files.create(command))

    async def str_replace(self, command: "StrReplace") -> str:
        """See `ElytronMemoryTool.str_replace`."""
        return await threads.run(lambda: self._files.str_replace(command))

    async def insert(self, command: "Insert") -> str:
        """See `ElytronMemoryTool.insert`."""
        return await threads.run(lambda: self._files.insert(command))

    async def delete(self, command: "Delete") -> str:
        """See `ElytronMemoryTool.delete`."""
        return await threads.run(lambda: self._files.delete(command))

    async def rename(self, command: "Rename") -> str:
        """See `ElytronMemoryTool.rename`."""
        return await threads.run(lambda: self._files.rename(command))

    async def clear_all_memory(self) -> str:
        """See `ElytronMemoryTool.clear_all_memory`."""
        return await threads.run(self._files.clear)


def _missing(path: str) -> str:
    return f"The path {path} does not exist. Please provide a valid path."


def _file(files: dict[str, _File], at: str, path: str) -> _File:
    if at in files:
        return files[at]
    if at in directories(files):
        raise ToolError(f"The path {path} is not a file.")
    raise ToolError(_missing(path))


def _within(files: dict[str, _File], at: str) -> list[str]:
    """The file at a place, or those below it."""
    return [name for name in files if name == at or name.startswith(f"{at}/")]


def _check_parents(at: str, files: dict[str, _File]) -> None:
    names = at.split("/")
    for depth in range(1, len(names)):
        if (parent := "/".join(names[:depth])) in files:
            raise ToolError(f"The path {ROOT}/{parent} is not a directory.")


def _check_room(files: dict[str, _File], at: str, text: str) -> None:
    others = [file.size_bytes for name, file in files.items() if name != at]
    total_kb = (sum(others) + len(text.encode(errors="surrogatepass"))) / 1024
    if len(others) >= FILES_MAX:
        raise ToolError(f"There are {FILES_MAX} files already; delete one, or use one again.")
    if total_kb > TOTAL_MAX_KB:
        raise ToolError(
            f"All files together would have {total_kb:.0f} KB, at most {TOTAL_MAX_KB}; shorten one."
        )


def _text(memory: Memory) -> str:
    odd = memory.metadata.get("text")
    return memory.content if odd is None else str(json.loads(odd))


def _hashed(text: str) -> str:
    return f"memory-file-{hashlib.sha256(text.encode()).hexdigest()}"
