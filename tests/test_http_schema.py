"""What a stranger's program makes up from the OpenAPI document never breaks the server."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from serving import Served, served

# Those that hold whatever the document leaves unsaid of values, as which role there is.
NAMES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
EXAMPLES_MAX = 30  # an operation
ENDLESS = "/v1/events"  # its answer has no end
MAY_FAIL = (503, 504, 507)  # documented: the store cannot do it now


@schemathesis.serializer("application/x-ndjson")
def lines(_context: object, value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("schema") / "store"
    with served(folder) as one:
        for number in range(20):
            one.call("save", role="user", content=f"Alice met Bob {number} times", session="s")
        one.call("relate", source="Alice", relation="knows", target="Bob")
        yield one


def test_generated_requests_find_no_fault(
    where: Served, caplog: pytest.LogCaptureFixture, subtests: pytest.Subtests
) -> None:
    caplog.set_level(logging.WARNING)
    schema = schemathesis.openapi.from_url(f"{where.url}/openapi.json")
    seen = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path == ENDLESS:
            continue
        with subtests.test(operation.label):
            _try(operation)
        seen += 1
    assert seen > 40
    assert not [record.getMessage() for record in caplog.records if record.name == "elytron.http"]


def _takes_something(operation: schemathesis.APIOperation) -> bool:
    """Whether there is a parameter or a body, of which something wrong can be sent."""
    return bool(list(operation.query) or list(operation.body))


def _try(operation: schemathesis.APIOperation) -> None:
    checks = [CHECKS.get_one(name) for name in NAMES]

    for mode in GenerationMode:
        if mode is GenerationMode.NEGATIVE and not _takes_something(operation):
            continue

        @settings(
            max_examples=EXAMPLES_MAX // 2,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def one(case: schemathesis.Case) -> None:
            response = case.call(timeout=60)
            left = [
                c for c in checks if response.status_code not in MAY_FAIL or c.__name__ != NAMES[0]
            ]
            case.validate_response(response, checks=left)

        one()
