"""The documents say what the code does: settings, links, and the first minute as printed."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import elytron
from elytron import errors
from elytron.faces import python_reference, settings_reference

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


def test_the_settings_page_is_in_step_with_the_code() -> None:
    held = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert held == settings_reference.markdown(), (
        "run: python -m elytron.faces.settings_reference > docs/settings.md"
    )


def test_the_python_page_is_in_step_with_the_library() -> None:
    held = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert held == python_reference.markdown(), (
        "run: python -m elytron.faces.python_reference > docs/python.md"
    )
    for name in elytron.__all__:
        if name not in ("Agent", "Config", "ElytronError", "Store"):
            assert re.search(rf"\b{name}\b", held), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """Of each heading the words in lower case, joined by dashes, as is usual for Markdown."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
        name = words.strip().replace(" ", "-")
        found.add(f"{name}-1" if name in found else name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_headings_that_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
        held = anchors(page.parent / target if target else page)
        assert anchor in held, f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_the_pages_name_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:bench|tests|docs)/[\w/.-]+\.\w+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_pages_have_make_do_is_in_the_makefile(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z][\w-]*):", makefile, re.M))
    for target in re.findall(r"(?:^|`)make ([a-z][\w-]*)", page.read_text("utf-8"), re.M):
        assert target in known, f"{page.name} says `make {target}`"


def test_make_demo_is_the_demo_of_the_command_line() -> None:
    """Which has tests of its own: tests/test_cli_demo.py."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo: .*\n\t@\$\(BIN\)/elytron demo\n", makefile, re.M)


def printed_by(program: str, folder: Path) -> str:
    """What a program of a page prints, run in *folder*; it has to end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_minute_in_python_works_as_printed(tmp_path: Path) -> None:
    program, *_ = blocks(ROOT / "README.md", "python")
    printed = printed_by(program, tmp_path)
    assert "Alice" in printed
    assert "Lyon" in printed


def test_the_loop_of_an_agent_works_as_printed_after_the_first_minute(tmp_path: Path) -> None:
    program, loop, *_ = blocks(ROOT / "README.md", "python")
    printed_by(program, tmp_path)
    assert "(answers a prompt of" in printed_by(loop, tmp_path)
    with elytron.open(tmp_path / "data" / "memory") as store:
        said = store.agent("Bob Technique").history("web-43", limit=10)
    assert [message.role for message in said] == ["user", "assistant"]


def test_the_first_example_of_getting_started_works_as_printed(tmp_path: Path) -> None:
    first, retrying, *_ = blocks(ROOT / "docs" / "start.md", "python")
    program = f"{first}\n{retrying}\nwith elytron.open('data/memory') as store:\n"
    program += "    print(save(store.agent('Bob'), 'hello', 'one').new)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"


def test_the_web_program_of_getting_started_keeps_people_apart(tmp_path: Path) -> None:
    """Its third example, asked by two people: none gets another's words, or his own question."""
    _, _, program = blocks(ROOT / "docs" / "start.md", "python")
    program += """
import asyncio, httpx

async def main():
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(
        transport=transport, base_url="http://test"
    ) as client:
        async def ask(user, text):
            return (await client.post("/say", params={"user": user, "text": text})).json()

        assert await ask("alice", "My PIN is 4711.") == ""
        assert await ask("marc", "What is the PIN?") == ""
        found = await ask("alice", "What is my PIN?")
        assert "4711" in found and "What" not in found, found

asyncio.run(main())
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr


def serve_for_a_moment(command: str, folder: Path) -> None:
    """Until it says where it is; on any port, since the usual one may be taken."""
    arguments = [*shlex.split(command), "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "http://127.0.0.1:" in process.stdout.readline()
        process.terminate()
        assert process.wait(60) == 0


def test_the_first_minute_in_the_shell_works_as_printed(tmp_path: Path) -> None:
    """The import is left out: it names a file that the reader has."""
    commands = [
        line.split("#")[0]
        for block in blocks(ROOT / "README.md", "sh")
        for line in block.splitlines()
        if line.startswith("elytron ") and " import " not in line
    ]
    assert len(commands) >= 3
    printed = ""
    for command in commands:
        if "elytron serve" in command:
            serve_for_a_moment(command, tmp_path)
            continue
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", *shlex.split(command)],
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
        printed += done.stdout
    assert "Lyon" in printed


def steps(page: Path) -> list[tuple[str, str]]:
    """The blocks of a page that a reader would carry out, in their order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```(sh|yaml|python|text|cypher)\n(.*?)^```", text, re.S | re.M)


def without_sizes(printed: str) -> str:
    """What was printed, but for the sizes, which depend on the version."""
    return re.sub(r"[\d.,]+ [KM]?B", "SIZE", re.sub(r" +", " ", re.sub(r"─+", "─", printed)))


class Reader:
    """Carries out the blocks of a page in one folder, each after those above it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = dict(os.environ, COLUMNS="80")
        self.printed = ""
        self.done: list[str] = []  # the kinds of what was run

    def run(self, kind: str, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stderr)
        self.printed = done.stdout
        self.done.append(kind)

    def follow(self, page: Path) -> None:
        """
        `text` is what the command before it has printed, `memory.yaml` the one file of settings.
        Only commands of elytron are run, and `export`: not everybody has `zstdcat`. What a page
        tries it tries in a store of its own, beside the one that README makes.
        """
        for kind, block in steps(page):
            if kind == "yaml":
                (self.folder / "memory.yaml").write_text(block, encoding="utf-8")
                self.environment["ELYTRON_CONFIG"] = "memory.yaml"
            elif kind == "python":
                self.run(kind, "-c", block)
            elif kind == "text":
                assert without_sizes(self.printed).strip() == without_sizes(block).strip()
            elif kind == "sh":
                for line in block.splitlines():
                    if line.startswith("export "):
                        name, _, value = shlex.split(line, comments=True)[1].partition("=")
                        self.environment[name] = value
                    elif line.startswith("elytron "):
                        self.run(kind, "-m", *shlex.split(line, comments=True))
        assert not (self.folder / "data" / "memory").exists()


def parameters(query: str) -> dict[str, object]:
    """The values, in JSON, that the comment on a query's first line gives its parameters."""
    first = query.splitlines()[0]
    found = re.findall(r"\$(\w+) = (\[.*?\]|\".*?\")", first) if first.startswith("//") else []
    return {name: json.loads(value) for name, value in found}


def test_the_guide_can_be_followed_from_its_first_line_to_its_last(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.follow(ROOT / "docs" / "guide.md")
    assert reader.done.count("sh") >= 15
    assert reader.done.count("python") >= 2


def test_the_page_on_the_graph_can_be_followed_and_its_queries_give_rows(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    page = ROOT / "docs" / "graph.md"
    reader.follow(page)
    assert reader.done.count("sh") >= 15
    assert reader.done.count("python") >= 2
    queries = [block for kind, block in steps(page) if kind == "cypher"]
    assert len(queries) >= 12
    for engine in ("ladybug", "kuzu"):
        with elytron.open(tmp_path / "data" / "try", engine=engine) as store:
            for query in queries:
                rows = store.agent("Bob").cypher(query, parameters(query))
                assert rows, (engine, query)
                numbers = [value for row in rows for value in row.values() if type(value) is int]
                assert not numbers or any(numbers), (engine, query, rows)


def test_the_schema_on_the_page_is_that_of_the_graph(tmp_path: Path) -> None:
    """Each property that the page names can be asked for, and the engine has no other."""
    page = (ROOT / "docs" / "graph.md").read_text(encoding="utf-8")
    ends = {
        "SENT": "(:User)-[x:SENT]->(:Message)",
        "PART_OF": "(:Message)-[x:PART_OF]->(:Session)",
        "RESPONDS_TO": "(:Message)-[x:RESPONDS_TO]->(:Message)",
        "MENTIONS": "()-[x:MENTIONS]->(:Concept)",
        "RELATES_TO": "(:Concept)-[x:RELATES_TO]->(:Concept)",
        "LEARNED_IN": "(:Memory)-[x:LEARNED_IN]->(:Session)",
    }
    with elytron.open(tmp_path) as store:
        bob = store.agent("Bob")
        bob.save("user", "Hello, I am Alice.", user="alice", session="web")
        bob.save("assistant", "Hello Alice.", session="web")
        bob.remember("Alice said hello.", about=["Alice"], session="web")
        bob.relate("Alice", "talks to", "Bob")
        bob.flush()
        tables = page[: page.index("## Limits")]
        for name, properties in re.findall(r"^\| `(\w+)` \|(.*)\|$", tables, re.M):
            pattern = ends.get(name, f"(x:{name})")
            (row,) = bob.cypher(f"MATCH {pattern} RETURN x LIMIT 1")
            inside = {held for held in row["x"] if not held.startswith("_")}
            if name in ends:
                properties = properties.rpartition("|")[2]
            assert inside == set(re.findall(r"`(\w+)`", properties)), name


def test_every_error_has_its_row_in_getting_started() -> None:
    page = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    leaves = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, errors.ElytronError)
        and value is not errors.ElytronError
    ]
    assert leaves
    for name in leaves:
        assert f"`{name}`" in page, name
