"""How the arguments of a tool are checked, before and by its schema."""

import pytest
from jsonschema import Draft202012Validator

from elytron.errors import InvalidArgument
from elytron.faces.mcp.reference_profile import reference_profile
from elytron.faces.mcp.tools import ITEMS_MAX, Checker

ALICE = {"name": "Alice", "entityType": "person"}


def checker_of(name):
    return Checker(next(tool for tool in reference_profile(None).tools if tool.name == name))


@pytest.mark.parametrize(
    ("tool", "arguments", "count"),
    [
        ("open_nodes", {"names": [0] * 1001}, 1001),
        ("create_entities", {"entities": [{**ALICE, "observations": [0] * 1001}]}, 1001),
        ("create_entities", {"entities": [{**ALICE, "observations": [0] * 2}] * 1000}, 2002),
        ("create_entities", {"entities": [{"x": [[0] * 900] * 900}]}, 2701),
        ("read_graph", {str(number): 0 for number in range(1001)}, 1001),
    ],
    ids=["list", "inner list", "lists", "lists of lists", "object"],
)
def test_more_than_a_call_may_hold_is_refused_before_a_schema_looks_at_it(tool, arguments, count):
    """Method: what a schema would refuse in other words, or let through."""
    checker = checker_of(tool)
    with pytest.raises(InvalidArgument, match=f"^{count} items in one call, at most {ITEMS_MAX}"):
        checker.check(arguments)


def test_of_a_call_with_many_errors_only_so_many_are_looked_at(monkeypatch):
    given = 0

    def errors(validator, instance):
        nonlocal given
        for error in found(validator, instance):
            given += 1
            yield error

    found = Draft202012Validator.iter_errors
    monkeypatch.setattr(Draft202012Validator, "iter_errors", errors)
    checker = checker_of("open_nodes")
    with pytest.raises(InvalidArgument, match="must be of type string"):
        checker.check({"names": [0] * ITEMS_MAX})
    assert 0 < given <= 20
