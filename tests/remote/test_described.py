"""What the server says of itself to tools: the OpenAPI document, and the numbers for Prometheus."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sage_nb import JobManagerClient, JobManagerServer
from sage_nb.remote.app import make_app
from sage_nb.remote.core import Core
from sage_nb.remote.openapi import description
from sage_nb.remote.settings import Settings
from tests.remote.raw import ask, pipeline

DOCUMENT = description()
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation."""
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def inner(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from inner(value)
    elif isinstance(node, list):
        for value in node:
            yield from inner(value)


def test_the_document_is_what_the_server_gives(server: JobManagerServer) -> None:
    assert ask(server, "GET", "/openapi.json").json == DOCUMENT


def test_the_document_lists_the_routes_that_there_are_and_no_others(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    app = make_app(Core(Settings(), tmp_path, loop), None)
    loop.close()
    routes = {
        (resource.canonical, route.method.lower())
        for resource in app.router.resources()
        for route in resource
        if route.method != "HEAD"
    }
    assert {(path, method) for path, method, _ in operations()} == routes


def test_the_document_has_what_one_of_openapi_must_have() -> None:
    assert re.fullmatch(r"3\.1\.\d+", DOCUMENT["openapi"])
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    assert all(isinstance(DOCUMENT["info"][name], str) for name in ("title", "version"))
    for path, method, operation in operations():
        assert path.startswith("/")
        assert method in METHODS
        assert operation["summary"]
        assert operation["responses"]
        for code, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d|default", code)
            assert response["description"]
        in_path = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))
    names = [(one["name"], one["in"]) for _, _, op in operations() for one in op.get("parameters", ())]
    assert names


def test_every_parameter_and_schema_of_the_document_is_one() -> None:
    for _, _, operation in operations():
        for one in operation.get("parameters", ()):
            assert {"name", "in", "schema"} <= one.keys()
            assert one["in"] in ("path", "query", "header")
            assert one.get("required") is True or one["in"] != "path"
    for node in inner(DOCUMENT):
        kinds = node.get("type", [])
        if "properties" in node or "items" in node or "$ref" in node or "enum" in node:
            assert set([kinds] if isinstance(kinds, str) else kinds) <= TYPES
        if (reference := node.get("$ref")) is not None:
            found: Any = DOCUMENT
            assert reference.startswith("#/")
            for part in reference[2:].split("/"):
                found = found[part]
            assert isinstance(found, dict)


def test_the_answers_are_of_the_form_that_the_document_says(server: JobManagerServer) -> None:
    uuid = JobManagerClient(port=server.port).submit_job(pipeline(server), autostop=True)
    for path in ("/health", "/v1/server", "/v1/jobs", "/v1/jobs/{job}", "/v1/jobs/{job}/states", "/v1/jobs/{job}/logs"):
        schema = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        answer = ask(server, "GET", path.replace("{job}", uuid))
        assert answer.status == 200
        fits(answer.json, schema)
    fits(ask(server, "GET", "/v1/jobs/nothing").json, {"$ref": "#/components/schemas/Error"})


PYTHON = {
    "object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool,
    "null": type(None),
}  # fmt: skip


def fits(value: Any, schema: dict[str, Any]) -> None:
    """Check a value by the few words of JSON Schema that the document has; an object may have no other fields."""
    if (reference := schema.get("$ref")) is not None:
        schema = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
    kinds = schema.get("type", "object")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    assert any(isinstance(value, PYTHON[kind]) for kind in kinds), f"{value!r} is no {kinds}"  # type: ignore[arg-type]
    assert value in schema.get("enum", [value])
    if isinstance(value, dict) and "properties" in schema:
        assert value.keys() == schema["properties"].keys()
        for name, part in value.items():
            fits(part, schema["properties"][name])
    if isinstance(value, list):
        for part in value:
            fits(part, schema["items"])


# Prometheus


def numbers(server: JobManagerServer) -> dict[str, dict[tuple[str, ...], float]]:
    """The numbers by name and labels."""
    text = ask(server, "GET", "/metrics").body.decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


@pytest.mark.parametrize("again", [1, 2])
def test_the_numbers_are_read_by_prometheus_and_count(server: JobManagerServer, again: int) -> None:
    before = numbers(server)
    assert before["sage_nb_jobs_running"] == {(): 0.0}
    assert before["sage_nb_history_ok"] == {(): 1.0}
    JobManagerClient(port=server.port).submit_job(pipeline(server), autostop=True)
    after = numbers(server)
    assert after["sage_nb_jobs_known"][()] == before["sage_nb_jobs_known"][()] + 1
    ended, ended_before = after["sage_nb_jobs_ended_total"], before["sage_nb_jobs_ended_total"]
    assert ended == {**ended_before, ("completed",): ended_before[("completed",)] + 1}
    assert after["sage_nb_uptime_seconds"][()] > before["sage_nb_uptime_seconds"][()]
    assert after["sage_nb_log_bytes"][()] > before["sage_nb_log_bytes"][()]
    assert after.keys() == before.keys()


def test_the_numbers_say_of_what_form_they_are(server: JobManagerServer) -> None:
    text = ask(server, "GET", "/metrics").body.decode()
    assert text.endswith("\n")
    names = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(dict(names)) == len(names)
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in names)
