"""Claude's memory tool: beside the one on files that comes with Anthropic's package."""

import asyncio
import inspect
import json
import multiprocessing
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx2 as httpx
import pytest
from anthropic.lib.tools import ToolError
from anthropic.tools.memory import BetaLocalFilesystemMemoryTool
from hypothesis import given, settings
from hypothesis import strategies as st

import elytron
import elytron.aio
from elytron.adapters import anthropic_memory
from elytron.adapters.anthropic_memory import ElytronAsyncMemoryTool, ElytronMemoryTool
from programs import ROOT, documented, run_program

A = "/memories/a.md"


@pytest.fixture
def tool(bob: elytron.Agent) -> ElytronMemoryTool:
    return ElytronMemoryTool(bob)


def said(tool: Any, command: str, **arguments: Any) -> str:
    """What the tool answers, or why it refuses."""
    try:
        return str(tool.call({"command": command, **arguments}))
    except ToolError as error:
        return f"refused: {error}"


def create(tool: Any, path: str = A, text: str = "one\ntwo\nthree\n") -> str:
    return said(tool, "create", path=path, file_text=text)


def view(tool: Any, path: str = "/memories", **more: Any) -> str:
    return said(tool, "view", path=path, **more)


# -- beside the tool on files

NAMES = st.sampled_from(["a", "b.md", "c d", ".hidden"])
PATHS = st.lists(NAMES, max_size=3).map(lambda names: "/".join(["/memories", *names]))
ODD_PATHS = st.sampled_from(
    [
        "/",
        "",
        "memories/a",
        "/etc/passwd",
        "/memories/..",
        "/memories/../../etc",
        "/memories/a/../a",
    ]
)
LINES = st.lists(st.sampled_from(["", "one", "two", "one two", "é\r", "\0"]), max_size=4)
TEXTS = LINES.map("\n".join)
PARTS = st.sampled_from(["one", "two", "\n", "one\n", "é", "w"])
CALLS = st.one_of(
    st.tuples(st.just("create"), PATHS | ODD_PATHS, TEXTS),
    st.tuples(
        st.just("view"),
        PATHS | ODD_PATHS,
        st.none() | st.lists(st.integers(-1, 5), min_size=2, max_size=2),
    ),
    st.tuples(st.just("str_replace"), PATHS | ODD_PATHS, PARTS, PARTS),
    st.tuples(st.just("insert"), PATHS | ODD_PATHS, st.integers(-1, 5), TEXTS),
    st.tuples(st.just("delete"), PATHS | ODD_PATHS),
    st.tuples(st.just("rename"), PATHS | ODD_PATHS, PATHS | ODD_PATHS),
)
ARGUMENTS = {
    "create": ("path", "file_text"),
    "view": ("path", "view_range"),
    "str_replace": ("path", "old_str", "new_str"),
    "insert": ("path", "insert_line", "insert_text"),
    "delete": ("path",),
    "rename": ("old_path", "new_path"),
}


def carry_out(tool: Any, call: tuple[Any, ...]) -> str:
    what, *values = call
    try:
        return said(tool, what, **dict(zip(ARGUMENTS[what], values, strict=True)))
    except OSError as error:  # the tool on files lets these through
        return f"refused: {error}"


def without_sizes(answer: str) -> str:
    """Directories have the size of their files here, and whatever the file system says there."""
    return re.sub(r"^[\d.]+[BKMG]\t(?=/memories$|.*/$)", "SIZE\t", answer, flags=re.M)


def tidied(folder: Path) -> None:
    """Take empty directories away: there are none here."""
    for directory in sorted(folder.rglob("*"), reverse=True):
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


@settings(max_examples=150)
@given(calls=st.lists(CALLS, max_size=12))
def test_whatever_is_called_is_answered_as_by_the_tool_on_files(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[Any, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    with elytron.open(folder / "ours") as opened:
        ours = ElytronMemoryTool(opened.agent("Bob"))
        theirs = BetaLocalFilesystemMemoryTool(str(folder / "theirs"))
        for call in calls:
            one, other = carry_out(ours, call), carry_out(theirs, call)
            tidied(theirs.memory_root)
            if "[Errno" in other:  # a file where a directory should be
                assert one.startswith("refused: ")
            elif call[0] == "view" and call[1] != "/memories":
                assert without_sizes(one).split("\n")[2:] == without_sizes(other).split("\n")[2:]
                assert one.split("\n")[0] == other.split("\n")[0]
            else:
                assert without_sizes(one) == without_sizes(other), call
        assert without_sizes(view(ours)) == without_sizes(view(theirs))
    assert not (folder / "etc").exists()


def test_the_answers_are_those_that_claude_knows(tool: ElytronMemoryTool) -> None:
    assert create(tool) == f"File created successfully at: {A}"
    assert create(tool) == f"refused: File {A} already exists"
    assert create(tool, "/memories/deep/er/b.md", "x" * 1536).startswith("File created")
    assert view(tool) == (
        "Here're the files and directories up to 2 levels deep in /memories, excluding hidden"
        " items:\n1.5K\t/memories\n14B\t/memories/a.md\n1.5K\t/memories/deep/\n"
        "1.5K\t/memories/deep/er/"
    )
    assert view(tool, A) == (
        f"Here's the content of {A} with line numbers:\n"
        "     1\tone\n     2\ttwo\n     3\tthree\n     4\t"
    )
    assert view(tool, A, view_range=[2, 3]).endswith("numbers:\n     2\ttwo\n     3\tthree")
    assert said(tool, "str_replace", path=A, old_str="two", new_str="2") == (
        "The memory file has been edited. Here is the snippet showing the change (with line"
        " numbers):\n     1\tone\n     2\t2\n     3\tthree\n     4\t"
    )
    assert said(tool, "str_replace", path=A, old_str="four", new_str="4") == (
        f"refused: No replacement was performed, old_str `four` did not appear verbatim in {A}."
    )
    assert "Multiple occurrences of old_str `e` in lines: 1, 3, 3." in said(
        tool, "str_replace", path=A, old_str="e", new_str=""
    )
    assert said(tool, "insert", path=A, insert_line=9, insert_text="x") == (
        "refused: Invalid `insert_line` parameter: 9. It should be within the range [0, 3]."
    )
    assert said(tool, "rename", old_path=A, new_path="/memories/b.md") == (
        f"Successfully renamed {A} to /memories/b.md"
    )
    assert view(tool, A) == (f"refused: The path {A} does not exist. Please provide a valid path.")
    assert said(tool, "delete", path="/memories") == (
        "refused: Cannot delete the /memories directory itself"
    )
    assert said(tool, "delete", path="/memories/deep") == "Successfully deleted /memories/deep"
    assert tool.clear_all_memory() == "All memory cleared"
    assert view(tool).endswith("\n0B\t/memories")
    assert tool.to_dict() == {"type": "memory_20250818", "name": "memory"}


@pytest.mark.parametrize(
    "path",
    [
        "/memories/../secret",
        "/memories/a/../../secret",
        "/memories/..",
        "/etc/passwd",
        "memories/a",
        "/memoriesx",
        "/memories/a\0b",
        "/memories/a\nb",
        "/memories/\u202egpj.exe",
        "/memories/\ud800",
        "/memories/" + "x" * 2000,
        "",
    ],
)
def test_tricks_with_paths_are_refused_by_every_command(
    tool: ElytronMemoryTool, bob: elytron.Agent, path: str
) -> None:
    for answer in (
        create(tool, path),
        view(tool, path),
        said(tool, "str_replace", path=path, old_str="a", new_str="b"),
        said(tool, "insert", path=path, insert_line=0, insert_text="x"),
        said(tool, "delete", path=path),
        said(tool, "rename", old_path=path, new_path=A),
        said(tool, "rename", old_path=A, new_path=path),
    ):
        assert answer.startswith("refused: ")
        assert len(answer) < 400
    assert not bob.exists()


def test_what_stays_inside_is_the_same_file_however_it_is_written(tool: ElytronMemoryTool) -> None:
    create(tool)
    for path in ("/memories//a.md", "/memories/./a.md", "/memories/x/../a.md", "/memories/a.md/"):
        assert "one" in view(tool, path)


@pytest.mark.parametrize("text", ["", " \n", "\0", "\ud800", "a\r\nb", "é" * 50_000, "\n" * 100])
def test_any_text_is_held_as_it_is(
    tool: ElytronMemoryTool, open_store: Callable[..., elytron.Store], text: str
) -> None:
    create(tool, A, text)
    again = ElytronMemoryTool(open_store().agent("Bob"))
    shown = view(again, A).split(":\n", 1)[1]
    assert "\n".join(line.split("\t", 1)[1] for line in shown.split("\n")) == text


def test_files_are_found_by_their_words_and_only_as_they_are_now(
    tool: ElytronMemoryTool, bob: elytron.Agent
) -> None:
    create(tool, A, "Alice lives in Lyon.")
    said(tool, "str_replace", path=A, old_str="Lyon", new_str="Paris")
    assert [hit.message.content for hit in bob.recall("Alice lives")] == ["Alice lives in Paris."]
    assert bob.recall("Lyon") == []
    assert len(bob.memories(limit=100, as_of=None)) == 1
    said(tool, "delete", path=A)
    assert bob.usage().memories == 0


def test_sizes_are_limited_and_claude_is_told(
    tool: ElytronMemoryTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "max_message_kb" in create(tool, A, "x" * 300_000)
    create(tool, A, "x" * 250_000)
    assert "max_message_kb" in said(tool, "insert", path=A, insert_line=0, insert_text="y" * 50_000)
    assert "y" not in view(tool, A)[100:]
    for number in range(15):
        assert "created" in create(tool, f"/memories/{number}", "x" * 256_000)
    assert "at most 4096" in create(tool, "/memories/more", "x" * 256_000)
    monkeypatch.setattr(anthropic_memory, "FILES_MAX", 20)
    for number in range(4):
        create(tool, f"/memories/small{number}", "x")
    assert "20 files already" in create(tool, "/memories/one more", "x")
    assert "edited" in said(tool, "insert", path="/memories/small0", insert_line=0, insert_text="y")


def test_a_change_that_was_stopped_before_its_end_leaves_nothing_in_the_way(
    tool: ElytronMemoryTool, bob: elytron.Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after the new version was written and before the old one was deleted."""
    create(tool, A, "one")

    def dies(id: str) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tool._files._agent, "delete_memory", dies)
        with pytest.raises(KeyboardInterrupt):
            said(tool, "rename", old_path=A, new_path="/memories/b.md")
    again = ElytronMemoryTool(bob)
    assert "one" in view(again, "/memories/b.md")
    assert "does not exist" in view(again, A)
    assert "created" in create(again, A, "anew")
    assert "anew" in view(again, A)
    again.clear_all_memory()
    assert bob.usage().memories == 0


def test_a_file_can_be_edited_however_often_its_changes_were_stopped(
    tool: ElytronMemoryTool, bob: elytron.Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each version has the id that an earlier life of the file had; some of those are left."""

    def dies(id: str) -> bool:
        raise KeyboardInterrupt

    for life in range(3):
        create(tool, A, "one")
        for edit in range(3):
            with monkeypatch.context() as patched:
                patched.setattr(tool._files._agent, "delete_memory", dies)
                with pytest.raises(KeyboardInterrupt):
                    said(tool, "insert", path=A, insert_line=0, insert_text=f"{life} {edit}")
            tool = ElytronMemoryTool(bob)
        assert f"{life} 0" in view(tool, A)
        assert "deleted" in said(tool, "delete", path=A)
        assert "does not exist" in view(tool, A)
    tool.clear_all_memory()
    assert bob.usage().memories == 0


def test_a_file_that_was_moved_away_and_made_again_can_be_edited(tool: ElytronMemoryTool) -> None:
    for life in range(3):
        create(tool, A, f"of life {life}")
        assert "edited" in said(tool, "insert", path=A, insert_line=0, insert_text="first")
        moved = f"/memories/{life}.md"
        assert "renamed" in said(tool, "rename", old_path=A, new_path=moved)
        assert "edited" in said(tool, "insert", path=moved, insert_line=0, insert_text="moved")
    for life in range(3):
        assert f"of life {life}" in view(tool, f"/memories/{life}.md")


# -- at the same time


def add_lines(folder: str, name: str, times: int) -> None:
    with elytron.open(folder) as store:
        tool = ElytronMemoryTool(store.agent("Bob"))
        for number in range(times):
            said(tool, "insert", path=A, insert_line=0, insert_text=f"{name} {number}")


def test_two_processes_that_edit_one_file_lose_nothing(
    tool: ElytronMemoryTool, folder: Path
) -> None:
    create(tool, A, "")
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=add_lines, args=(str(folder), name, 40)) for name in ("one", "two")
    ]
    for other in others:
        other.start()
    for other in others:
        other.join(120)
        assert other.exitcode == 0
    lines = view(tool, A).split("\n")[1:-1]
    assert sorted(line.split("\t")[1] for line in lines) == sorted(
        f"{name} {number}" for name in ("one", "two") for number in range(40)
    )


def test_threads_with_tools_of_their_own_lose_nothing(bob: elytron.Agent) -> None:
    """Equal insertions too: each of them is there."""
    create(ElytronMemoryTool(bob), A, "")
    together = threading.Barrier(6)
    failed: list[BaseException] = []

    def work() -> None:
        tool = ElytronMemoryTool(bob)
        try:
            together.wait(30)
            for _ in range(15):
                tool.call({"command": "insert", "path": A, "insert_line": 0, "insert_text": "same"})
        except BaseException as error:  # noqa: BLE001 - it is shown below
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed
    assert view(ElytronMemoryTool(bob), A).count("same") == 90
    assert bob.usage().memories == 1


def test_of_many_who_create_one_file_one_does(bob: elytron.Agent) -> None:
    answers: list[str] = []
    together = threading.Barrier(6)

    def work(number: int) -> None:
        tool = ElytronMemoryTool(bob)
        together.wait(30)
        answers.append(create(tool, A, f"by {number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum("created" in answer for answer in answers) == 1
    assert sum("already exists" in answer for answer in answers) == 5


# -- asyncio, and in a run of Anthropic's client


def test_the_asynchronous_tool_has_the_same_commands_and_answers(bob: elytron.Agent) -> None:
    for name, member in inspect.getmembers(ElytronMemoryTool, inspect.isfunction):
        if name in ARGUMENTS or name == "clear_all_memory":
            other = getattr(ElytronAsyncMemoryTool, name)
            assert inspect.signature(member) == inspect.signature(other)
            assert inspect.iscoroutinefunction(other)

    async def use() -> None:
        tool = ElytronAsyncMemoryTool(bob)
        await tool.call({"command": "create", "path": A, "file_text": ""})
        await asyncio.gather(
            *[
                tool.call({"command": "insert", "path": A, "insert_line": 0, "insert_text": str(n)})
                for n in range(20)
            ]
        )
        assert str(await tool.call({"command": "view", "path": A})).count("\n") == 21
        await tool.call({"command": "rename", "old_path": A, "new_path": "/memories/b"})
        await tool.call(
            {"command": "str_replace", "path": "/memories/b", "old_str": "19\n", "new_str": ""}
        )
        await tool.call({"command": "delete", "path": "/memories/b"})
        assert await tool.clear_all_memory() == "All memory cleared"

    asyncio.run(use())


def test_claude_can_use_it_in_a_run_of_the_client(tool: ElytronMemoryTool) -> None:
    """Anthropic's own client and tool runner; only the answers of Claude are made up."""
    calls = [
        {"command": "create", "path": A, "file_text": "Alice lives in Lyon.\n"},
        {"command": "view", "path": "/memories/nothing"},
        {"command": "view", "path": A},
    ]
    asked: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        number = len(asked) - 1
        content: list[dict[str, Any]] = [{"type": "text", "text": "Done."}]
        if number < len(calls):
            content = [
                {
                    "type": "tool_use",
                    "id": f"toolu_{number}",
                    "name": "memory",
                    "input": calls[number],
                }
            ]
        return httpx.Response(
            200,
            json={
                "id": f"msg_{number}",
                "type": "message",
                "role": "assistant",
                "model": "claude",
                "content": content,
                "stop_reason": "tool_use" if number < len(calls) else "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 1, "output_tokens": 1},
            },
        )

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as http,
        anthropic.Anthropic(api_key="none", http_client=http) as client,
    ):
        last = client.beta.messages.tool_runner(
            model="claude-sonnet-5-5",
            max_tokens=100,
            messages=[{"role": "user", "content": "Where do I live?"}],
            tools=[tool],
        ).until_done()
    assert last.content[0].type == "text"
    results = [request["messages"][-1]["content"][0] for request in asked[1:]]
    assert "created successfully" in str(results[0])
    assert results[1]["is_error"] is True
    assert "does not exist" in str(results[1])
    assert "Lyon" in str(results[2])


def test_an_asynchronous_agent_is_refused_with_the_way_out(folder: Path) -> None:
    async def use() -> None:
        async with elytron.aio.open(folder) as store:
            for kind in (ElytronMemoryTool, ElytronAsyncMemoryTool):
                with pytest.raises(elytron.InvalidArgument, match=r"elytron\.open"):
                    kind(store.agent("Bob"))  # type: ignore[arg-type]

    asyncio.run(use())


def test_the_example_shows_that_the_files_outlive_their_program(tmp_path: Path) -> None:
    printed = run_program(str(ROOT / "examples" / "anthropic_memory.py"), cwd=tmp_path)
    assert "refused: Path /memories/../../etc/passwd would escape" in printed
    assert "recall: '# Alice\\nLives in Paris.\\n'" in printed


def test_the_documented_program_works_as_printed(tmp_path: Path) -> None:
    assert "Lyon" in run_program("-c", documented("Anthropic's memory tool"), cwd=tmp_path)
