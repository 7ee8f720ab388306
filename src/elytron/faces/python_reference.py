"""
Python reference: `docs/python.md`, made from the signatures and docstrings of the library itself.

`python -m elytron.faces.python_reference > docs/python.md` writes it anew; a test holds the two in
step. Signatures are read from the source, so that the page is the same whichever Python makes it.
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import click

import elytron
from elytron.agent import Agent
from elytron.errors import ElytronError
from elytron.store import Store
from elytron.verbs.asking import Asking
from elytron.verbs.embedding import Embeds
from elytron.verbs.keeping import Keeping
from elytron.verbs.learning import Learning
from elytron.verbs.reading import Reading
from elytron.verbs.writing import Writing

_HEAD = """\
# Python

Made from the code by `python -m elytron.faces.python_reference > docs/python.md`; do not edit.

Every public name with its signature and the beginning of its docstring;
`help(elytron.Agent.recall)` shows the rest: ranges, costs, what is raised.
[start.md](start.md) is where to begin, and says
[what to do about an error](start.md#if-a-save-fails); settings are in [settings.md](settings.md).

`elytron.aio.open` and `elytron.aio.connect` have the same verbs, awaited. `submit` returns a future
of `concurrent.futures` there too:
`await asyncio.wrap_future(await bob.submit("user", "Hello"))` waits for its receipt.

What is not there is no error to those who read: of an agent that nobody wrote to, `history`,
`recall` and `sessions` are empty and `get` is None. `exists` says whether there is one.
"""
_PARTS = (Writing, Reading, Learning, Asking, Keeping, Embeds)
_ERRORS = "\n## Errors\n\nAll are an `ElytronError`, with `code` and `retryable`.\n\n"


def markdown() -> str:
    """The whole page."""
    public = [(name, getattr(elytron, name)) for name in elytron.__all__]
    functions = [_verb(f"elytron.{name}", it) for name, it in public if inspect.isfunction(it)]
    lines = [_HEAD, "## Functions\n", *functions]
    lines += [f"\n## Store\n\n{_first(Store)}\n", *_verbs(Store)]
    lines += [f"\n## Agent\n\n{_first(Agent)}"]
    for part in _PARTS:
        lines += [f"\n### {_first(part).rstrip('.')}\n", *_verbs(part)]
    lines += ["\n## Records\n\nAll are frozen dataclasses, or named tuples.\n"]
    lines += [_record(name, it) for name, it in public if _is_record(it)]
    errors = [f"- `{name}`: {_first(it)}" for name, it in public if _is_error(it)]
    return "\n".join(lines) + "\n" + _ERRORS + "\n".join(errors) + "\n"


def _is_record(it: Any) -> bool:
    """`Config` is a page of its own."""
    named = inspect.isclass(it) and issubclass(it, tuple)
    return (named or dataclasses.is_dataclass(it)) and it is not elytron.Config


def _is_error(it: Any) -> bool:
    return inspect.isclass(it) and issubclass(it, ElytronError) and it is not ElytronError


def _verbs(kind: type) -> Iterator[str]:
    for name, verb in vars(kind).items():
        if inspect.isfunction(verb) and not name.startswith("_"):
            yield _verb(name, verb)


def _verb(name: str, function: Callable[..., Any]) -> str:
    tree = _parsed(function)
    assert isinstance(tree, ast.FunctionDef), name
    tree.args.args = [one for one in tree.args.args if one.arg != "self"]
    returns = "" if tree.returns is None else f" -> {_plain(tree.returns)}"
    return f"- `{name}({_plain(tree.args)}){returns}`: {_first(function)}"


def _record(name: str, kind: type) -> str:
    tree = _parsed(kind)
    assert isinstance(tree, ast.ClassDef), name
    shown = [
        f"`{_plain(one.target)}: {_plain(one.annotation)}`"
        for one in tree.body
        if isinstance(one, ast.AnnAssign)
    ]
    shown += [f"`{field}`" for field, it in vars(kind).items() if isinstance(it, property)]
    return f"- **{name}**: {_first(kind)} {', '.join(shown)}."


def _parsed(it: Any) -> ast.stmt:
    return ast.parse(textwrap.dedent(inspect.getsource(it))).body[0]


def _plain(node: ast.AST) -> str:
    """As in the source, but for quotes around types."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ast.unparse(node)


def _first(it: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(it) or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    click.echo(markdown(), nl=False)
