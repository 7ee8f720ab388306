"""
Tools: what a tool is here, how its arguments are checked, and how it ends.

A tool is called with arguments that its schema lets through, makes its calls on one agent, and
answers in words and in data. Nothing here knows of the protocol's library but for the schemas.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from elytron.errors import InvalidArgument

Arguments = Mapping[str, Any]
Schema = dict[str, Any]
ITEMS_MAX = 1000  # that one call may write or delete, each in a commit of its own
_ERRORS_MAX = 20  # of one call, of which the best is told
_TOLD_MAX = 300  # characters of what a schema says of a wrong value


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool found or did: `text` for a model to read, `data` as its output schema has it."""

    text: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MemoryTool:
    """
    One tool. `reads` says that it changes nothing; `destroys`, that something may be lost by it;
    `repeats`, that calling it again with the same arguments changes nothing more.
    """

    name: str
    title: str
    description: str
    takes: Schema
    gives: Schema
    run: Callable[[Arguments], Answer]
    reads: bool = False
    destroys: bool = False
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """Something that can be read as a whole, and changes with each tool that changes anything."""

    uri: str
    name: str
    title: str
    description: str
    read: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Profile:
    """
    What one server offers. `in_order` says that what changes something is done in the order in
    which it was asked for, one after the other.
    """

    name: str
    instructions: str
    tools: Sequence[MemoryTool]
    in_order: bool = False
    document: Document | None = None


def text(description: str, **more: Any) -> Schema:
    """The schema of a string."""
    return {"type": "string", "description": description, **more}


def texts(description: str, **more: Any) -> Schema:
    """The schema of a list of strings."""
    return {"type": "array", "items": {"type": "string"}, "description": description, **more}


def fields(needed: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """The schema of an object."""
    schema: Schema = {"type": "object", "properties": {**needed, **(optional or {})}}
    if needed:
        schema["required"] = list(needed)
    return schema


def check_count(count: int) -> None:
    """
    Raises:
        InvalidArgument: it is over `ITEMS_MAX`.
    """
    if count > ITEMS_MAX:
        raise InvalidArgument(
            f"{count} items in one call, at most {ITEMS_MAX}; call several times, or import a file"
        )


class Checker:
    """Checks the arguments of one tool against its schema, which is prepared once."""

    def __init__(self, tool: MemoryTool) -> None:
        from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

        self._validator = Draft202012Validator(tool.takes)

    def check(self, arguments: Arguments) -> None:
        """
        Raises:
            InvalidArgument: with where and what is wrong.
        """
        from jsonschema.exceptions import best_match  # type: ignore[import-untyped]

        # First, since the server answers nobody else meanwhile, and a schema is slow on millions.
        _check_sizes(arguments)
        wrong = best_match(islice(self._validator.iter_errors(dict(arguments)), _ERRORS_MAX))
        if wrong is not None:
            where = ".".join(str(part) for part in wrong.absolute_path) or "the arguments"
            raise InvalidArgument(f"{where}: {_told(wrong)}")


def _check_sizes(arguments: Arguments) -> None:
    """
    Refuse what holds more than any tool takes: in one list or object, or in all lists, where
    each item may be a list of one.
    """
    unlooked: list[Any] = [arguments]
    listed = 0
    while unlooked:
        value = unlooked.pop()
        if isinstance(value, Mapping):
            check_count(len(value))
            unlooked.extend(value.values())
        elif isinstance(value, list):
            check_count(len(value))
            listed += len(value)
            if listed > 2 * ITEMS_MAX:
                check_count(listed)
            unlooked.extend(value)


def _told(wrong: Any) -> str:
    # The library's own words begin with the whole value, which may be long.
    match wrong.validator:
        case "type":
            return f"must be of type {wrong.validator_value}"
        case "minLength" | "minItems":
            return f"must have {wrong.validator_value} or more"
        case "minProperties" | "maxProperties":
            return f"pass one of {', '.join(wrong.schema['properties'])}"
        case "maxLength" | "maxItems":
            found = len(wrong.instance)
            return f"has {found}, at most {wrong.validator_value}; shorten it"
        case _:
            return str(wrong.message)[:_TOLD_MAX]
