"""
Descriptions: the OpenAPI document: each route, what it takes, what it answers, how it fails.

Made from the signatures and docstrings of the verbs, and served from here: no page loads anything
from elsewhere.
"""

import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import elytron
from elytron.faces.http.asked import JSON, MSGPACK, NDJSON
from elytron.faces.http.examples import EXAMPLES
from elytron.faces.http.routes import Route
from elytron.records import ROLES
from elytron.remote import calls
from elytron.remote.calls import Call

_REF_TEMPLATE = "#/components/schemas/{model}"
_BEARER = "token"
AGENT = {
    "name": "agent",
    "in": "query",
    "required": True,
    "description": "The agent's name, exactly: `Bob` and `bob` are two.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": 1000,
        "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$",
    },
}
# What the verbs ask of their arguments beyond a type.
_ID = {"minLength": 1, "maxLength": 200}
_VALUES: Mapping[str, Mapping[str, Any]] = {
    "role": {"enum": list(ROLES)},
    "id": _ID,
    "session": _ID,
    "user": _ID,
    "content": {"minLength": 1},
    "question": {"minLength": 1},
    "limit": {"minimum": 1, "maximum": 10_000},
    "importance": {"minimum": 0, "maximum": 1},
}
ERROR = {
    "type": "object",
    "required": ["error", "message", "retryable"],
    "properties": {
        "error": {"type": "string", "description": "A stable code, as `not-found`."},
        "message": {"type": "string", "description": "What is wrong, and the way out."},
        "retryable": {"type": "boolean", "description": "The same may go well later."},
        "permanent": {"type": "boolean"},
        "wait_s": {"type": ["number", "null"]},
    },
}
# What a status means here, whichever route it comes from.
_MEANINGS = {
    400: "What was sent is not acceptable. Nothing was changed.",
    401: "No token was sent, or an unknown one.",
    403: "The token is not for this; or the request came under another name, or from a page of"
    " another site.",
    404: "What was asked for by its id or name is not there.",
    405: "The path is asked with another method.",
    408: "The request did not arrive in time.",
    409: "The id is taken by a message with other content.",
    413: "The request is larger than `--max-request-mb`.",
    415: "The body is of another kind than this takes.",
    429: "More requests a second than `--max-requests-per-s`. Nothing was done.",
    500: "A fault of the server's, which its log tells.",
    503: "The store cannot do it now; `error` says why. 503 without JSON: too many connections.",
    504: "A question took longer, or more memory, than it may.",
    507: "No room: the agent's limit, or the disk.",
}
_PLAIN = (408, 503)  # may come before the request could be understood, as text


def of(call: Call) -> dict[str, Any]:
    """A verb's operation."""
    doc = inspect.getdoc(call.function) or call.verb
    arguments = calls.described(call).json_schema(ref_template=_REF_TEMPLATE)
    required = bool(arguments.get("required"))
    definitions = arguments.pop("$defs", {})
    content: dict[str, Any] = {"schema": _narrowed(inlined(arguments, definitions))}
    if not call.of_store and call.verb in EXAMPLES:
        content["example"] = EXAMPLES[call.verb]
    answers = {JSON: {"schema": _result(call)}}
    if call.long:
        answers[NDJSON] = {"schema": {"type": "string"}}
    return operation(
        doc,
        id=f"{'store_' if call.of_store else ''}{call.verb}",
        tag="store" if call.of_store else "writing" if call.writes else "reading",
        parameters=[] if call.of_store and not call.named else [AGENT],
        body={"required": required, "content": {JSON: content}},
        answers=answers | ({MSGPACK: {"schema": {}}} if call.verb == "cypher" else {}),
    )


def operation(
    doc: str,
    *,
    id: str,
    tag: str,
    answers: Mapping[str, Any],
    parameters: Iterable[Mapping[str, Any]] = (),
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    What the document says of a route.

    Args:
        answers: by media type, what it answers where all goes well.
    """
    summary = doc.partition("\n\n")[0].replace("\n", " ")
    told: dict[str, Any] = {
        "operationId": id,
        "summary": summary,
        "description": doc,
        "tags": [tag],
        "parameters": list(parameters),
        "responses": {
            "200": {"description": "Done.", "content": dict(answers)},
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in _MEANINGS},
        },
    }
    if body is not None:
        told["requestBody"] = dict(body)
    return told


def document(routes: Iterable[Route], *, tokens: bool) -> dict[str, Any]:
    """The OpenAPI document of *routes*; *tokens* says whether one is asked for."""
    paths: dict[str, Any] = {}
    for route in routes:
        if route.described:
            described = dict(route.described)
            if tokens and route.path.startswith((calls.PREFIX, "/metrics")):
                described["security"] = [{_BEARER: []}]
            paths[route.path] = {route.method.lower(): described}
    components: dict[str, Any] = {
        "schemas": {"Error": ERROR},
        "responses": {str(status): _failed(status) for status in _MEANINGS},
    }
    if tokens:
        components["securitySchemes"] = {_BEARER: {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Elytron",
            "version": elytron.__version__,
            "description": "Bounded, crash-proof graph memory for AI agents.",
        },
        "paths": paths,
        "components": components,
    }


def _failed(status: int) -> dict[str, Any]:
    content: dict[str, Any] = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    if status in _PLAIN:
        content["text/plain"] = {"schema": {"type": "string"}}
    return {"description": _MEANINGS[status], "content": content}


def _narrowed(schema: Any) -> Any:
    """A schema with what is known of the values of some members, at any depth."""
    if isinstance(schema, list):
        return [_narrowed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _narrowed(value) for name, value in schema.items()}
    for name, member in found.get("properties", {}).items():
        for choice in member.get("anyOf", [member]):
            if choice.get("type") in ("string", "integer", "number"):
                choice.update(_VALUES.get(name, {}))
    return found


@cache
def _result(call: Call) -> Any:
    schema = calls.result(call).json_schema(mode="serialization", ref_template=_REF_TEMPLATE)
    return inlined(schema, schema.pop("$defs", {}))


def inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema with each reference replaced by what it means, so that it stands by itself."""
    if isinstance(schema, list):
        return [inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "prefixItems" in schema:
        return _named(schema["prefixItems"])
    return {name: inlined(value, definitions) for name, value in schema.items()}


def _named(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A named tuple as the object that it is answered as; its names stand in the titles."""
    names = [item["title"].lower().replace(" ", "_") for item in items]
    return {
        "type": "object",
        "properties": dict(zip(names, items, strict=True)),
        "required": names,
    }
