"""
Anthropic texts: the paths of the memory tool, and what it answers. Pure.

The answers are those of the implementation on files that comes with Anthropic's package, so that
Claude reads what it knows.
"""
# mypy: disable-error-code="import-not-found"

from collections.abc import Mapping, Sequence

from anthropic.lib.tools import ToolError

from elytron.text import unprintable_at

ROOT = "/memories"
PATH_MAX = 1000  # characters
_DEPTH = 2  # levels of a directory that are shown
_WIDTH = 6  # of a line's number
_AROUND = 2  # lines shown before and after a change


def place(path: str) -> str:
    """
    Where a path leads to: `a/b` for `/memories/a/b`, the empty string for the root.

    Raises:
        ToolError: it leads out of the root, or is none.
    """
    if not isinstance(path, str) or not (path == ROOT or path.startswith(f"{ROOT}/")):
        raise ToolError(f"Path must start with {ROOT}, got: {path!s:.200}")
    if len(path) > PATH_MAX:
        raise ToolError(f"The path has {len(path)} characters, at most {PATH_MAX}; shorten it.")
    if unprintable_at(path) is not None:
        raise ToolError("The path has a control character in it; leave it out.")
    names: list[str] = []
    for name in path[len(ROOT) :].split("/"):
        if name == ".." and not names:
            raise ToolError(f"Path {path} would escape {ROOT} directory")
        if name == "..":
            names.pop()
        elif name not in ("", "."):
            names.append(name)
    return "/".join(names)


def directories(files: Mapping[str, object]) -> set[str]:
    """All places that have files below them; the root always."""
    found = {""}
    for file in files:
        names = file.split("/")
        found.update("/".join(names[:depth]) for depth in range(1, len(names)))
    return found


def listing(files: Mapping[str, int], directory: str, path: str) -> str:
    """What is in a directory: *files* has the bytes of each."""
    sizes: dict[tuple[str, ...], int] = {}
    total, folders = 0, set[tuple[str, ...]]()
    for file, size_bytes in files.items():
        if directory and not file.startswith(f"{directory}/"):
            continue
        total += size_bytes
        names = file[len(directory) :].lstrip("/").split("/")
        shown = tuple(names[:_DEPTH])
        for depth in range(1, len(shown) + 1):
            sizes[shown[:depth]] = sizes.get(shown[:depth], 0) + size_bytes
        folders.update(shown[:depth] for depth in range(1, min(len(names), _DEPTH + 1)))
    lines = [f"{_size(total)}\t{path}"]
    for names_shown in sorted(sizes):
        if not any(name.startswith(".") for name in names_shown):
            end = "/" if names_shown in folders else ""
            lines.append(f"{_size(sizes[names_shown])}\t{path}/{'/'.join(names_shown)}{end}")
    header = f"Here're the files and directories up to 2 levels deep in {path},"
    return f"{header} excluding hidden items:\n" + "\n".join(lines)


def numbered(text: str, path: str, view_range: Sequence[int] | None) -> str:
    """A file with the numbers of its lines, or those of a range, of which -1 is the end."""
    lines = text.split("\n")
    first, end = 0, len(lines)
    if view_range and len(view_range) == 2:
        first = max(1, view_range[0]) - 1
        end = len(lines) if view_range[1] == -1 else view_range[1]
    shown = _with_numbers(lines[first:end], first)
    return f"Here's the content of {path} with line numbers:\n{shown}"


def replaced(text: str, old: str, new: str, path: str) -> tuple[str, str]:
    """
    The text with *new* in the place of *old*, and what is said of it.

    Raises:
        ToolError: *old* is not in it, or more than once.
    """
    if not old:
        raise ToolError(f"No replacement was performed, old_str is empty in {path}.")
    found = _occurrences(text, old)
    if not found:
        raise ToolError(
            f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}."
        )
    if text.count(old) > 1:
        lines = ", ".join([str(text.count("\n", 0, at) + 1) for at in found])
        raise ToolError(
            f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines:"
            f" {lines}. Please ensure it is unique"
        )
    changed = text.replace(old, new)
    line = text.count("\n", 0, found[0])
    first = max(0, line - _AROUND)
    shown = _with_numbers(changed.split("\n")[first : line + _AROUND + 1], first)
    said = "The memory file has been edited. Here is the snippet showing the change (with line"
    return changed, f"{said} numbers):\n{shown}"


def inserted(text: str, line: int, new: str) -> str:
    """
    The text with *new* after its line number *line*; 0 is before the first.

    Raises:
        ToolError: there is no such line.
    """
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not 0 <= line <= len(lines):
        raise ToolError(
            f"Invalid `insert_line` parameter: {line}. It should be within the range"
            f" [0, {len(lines)}]."
        )
    lines.insert(line, new.rstrip("\n"))
    changed = "\n".join(lines)
    return changed if changed.endswith("\n") else f"{changed}\n"


def _occurrences(text: str, part: str) -> list[int]:
    found, at = [], text.find(part)
    while at != -1:
        found.append(at)
        at = text.find(part, at + 1)
    return found


def _with_numbers(lines: Sequence[str], before: int) -> str:
    return "\n".join(
        [f"{number:>{_WIDTH}}\t{line}" for number, line in enumerate(lines, before + 1)]
    )


def _size(size_bytes: int) -> str:
    size, unit = float(size_bytes), "B"
    for unit in "BKMG":
        if size < 1024 or unit == "G":
            break
        size /= 1024
    return f"{size:.0f}{unit}" if size == int(size) else f"{size:.1f}{unit}"
