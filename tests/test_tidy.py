"""The walls of the house: what may import what, how long things are, and what is never done."""

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "elytron"
FUNCTION_MAX = 70
MODULE_MAX = 500
LAYERS = (
    (
        "errors",
        "config",
        "config_sources",
        "config_values",
        "records",
        "reports",
        "text",
        "lines",
        "parquet",
    ),
    ("ledger", "embed", "graph", "archive"),
    ("write", "recall", "concepts"),
    ("behind", "import_run", "open_agent", "open_agents", "reindex_run", "upkeep"),
    ("verbs", "agent", "store", "remote", "migration"),
    ("aio",),
    ("adapters", "importers", "faces", "__main__"),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MAY_IMPORT_ROOT = {"aio", "adapters", "importers", "faces"}
FORBIDDEN_NAMES = {"manager", "service", "factory", "helper", "util"}

SOURCES = sorted(SRC.rglob("*.py"))
OTHERS = ("tests", "tests_adapters", "examples", "bench")
PYTHON = sorted([*SOURCES, *(path for name in OTHERS for path in (ROOT / name).rglob("*.py"))])
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    yield
    tree.cache_clear()


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    parts = ("elytron", *path.relative_to(SRC).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in SOURCES}


def part_of(module: str) -> str:
    """The part of the house that a module is in; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of ours, at the top or inside a function."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{shown(path)}:{node.lineno}: relative import"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield node.lineno, whole if whole in MODULES else node.module or ""


def test_imports_go_down_only():
    upward = []
    for path in SOURCES:
        here = part_of(module_name(path))
        if not here:
            continue  # the package itself lists public names, from wherever they are
        assert here in LEVEL, f"{here} has no layer yet; give it one here and in the design"
        for line, module in imported(path):
            there = part_of(module)
            if module in MODULES and there and LEVEL[there] > LEVEL[here]:
                upward.append(f"{shown(path)}:{line} imports {module}")
    assert not upward


def test_nothing_below_the_faces_imports_the_package_itself():
    found = [
        f"{shown(path)}:{line}"
        for path in SOURCES
        for line, module in imported(path)
        if module == "elytron" and part_of(module_name(path)) not in MAY_IMPORT_ROOT
    ]
    assert not found


def test_no_modules_import_each_other_in_a_circle():
    below = {
        module_name(path): {module for _, module in imported(path) if module in MODULES}
        for path in SOURCES
    }
    settled: set[str] = set()
    while ready := {name for name, needs in below.items() if needs - {name} <= settled} - settled:
        settled |= ready
    assert settled == MODULES, f"in a circle: {sorted(MODULES - settled)}"


def test_functions_are_under_70_lines():
    long = [
        f"{shown(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1}"
        for path in PYTHON
        for node in ast.walk(tree(path))
        if isinstance(node, FUNCTIONS) and node.end_lineno - node.lineno + 1 >= FUNCTION_MAX
    ]
    assert not long


def test_modules_are_under_500_lines():
    sizes = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON}
    assert not {path: size for path, size in sizes.items() if size >= MODULE_MAX}


def swallows(handler: ast.ExceptHandler) -> bool:
    return all(
        isinstance(step, ast.Pass | ast.Continue)
        or (isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant))
        for step in handler.body
    )


def suppresses_all(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("suppress"):
        return False
    return any(ast.unparse(name) in ("Exception", "BaseException") for name in node.args)


def test_no_exception_is_swallowed():
    swallowed = [
        f"{shown(path)}:{node.lineno}"
        for path in PYTHON
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.ExceptHandler) and swallows(node)) or suppresses_all(node)
    ]
    assert not swallowed


def test_nothing_prints_but_the_faces():
    printing = [
        f"{shown(path)}:{node.lineno}"
        for path in SOURCES
        if part_of(module_name(path)) != "faces"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert not printing


def test_no_name_says_manager_or_the_like():
    found = []
    for path in SOURCES:
        if part_of(module_name(path)) == "adapters":
            continue  # those carry the names that their frameworks ask for
        called = [(1, path.stem)] + [
            (node.lineno, node.name)
            for node in ast.walk(tree(path))
            if isinstance(node, (*FUNCTIONS, ast.ClassDef))
        ]
        for line, name in called:
            words = {word.lower().rstrip("s") for word in re.findall(r"[A-Z]?[a-z0-9]+", name)}
            if words & FORBIDDEN_NAMES:
                found.append(f"{shown(path)}:{line} {name}")
    assert not found


def test_the_standard_library_never_opens_a_ledger():
    found = [
        f"{shown(path)}:{line}"
        for path in SOURCES
        for line, module in imported(path)
        if module.partition(".")[0] == "sqlite3"
    ]
    assert not found


def project_files() -> list[Path]:
    """What git tracks, or is about to."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so nothing says which files are the project's")
    found = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in found if path.is_file() and b"\0" not in path.read_bytes()]


def test_no_file_holds_the_address_of_a_registry_or_of_somebodys_home():
    # In two halves, so that this file does not hold them either.
    halves = (
        ("pypi.", "org"), ("pythonhosted.", "org"), ("npmjs.", "org"), ("npmjs.", "com"),
        ("conda.", "anaconda"), ("--index", "-url"), ("crates.", "io"),
        ("/ho", "me/"), ("/Us", "ers/"), ("/ro", "ot/"), ("C:\\Us", "ers"),
    )  # fmt: skip
    needles = [first + second for first, second in halves]
    found = [
        f"{shown(path)}: {needle}"
        for path in project_files()
        for needle in needles
        if needle in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert not found


@pytest.mark.parametrize(
    "path", [ROOT / "constraints.txt", *sorted((ROOT / "constraints").glob("*.txt"))], ids=shown
)
def test_every_requirement_is_pinned_with_a_hash(path):
    text = path.read_text(encoding="utf-8")
    logical = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    requirements = [line for line in logical if not line.lstrip().startswith("#")]
    assert requirements
    pinned = re.compile(r"[A-Za-z0-9._-]+==\S+( ;.*)?( +--hash=sha256:[0-9a-f]{64})+ *")
    assert not [line[:60] for line in requirements if not pinned.fullmatch(line)]
