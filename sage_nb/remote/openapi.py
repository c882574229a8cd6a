"""The description of the server's HTTP side, for people and for tools that read OpenAPI."""

from __future__ import annotations

from typing import Any

import sage_nb

__all__ = ["description"]

_JOB = {"name": "job", "in": "path", "required": True, "schema": {"type": "string"}}
_WHICH = {**_JOB, "description": "A job's uuid, its number, or a beginning of the uuid that no other has."}
_REPEAT = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": 100},
    "description": "An id made by the client: a repeat of the same request gets the first answer.",
}
_NULLABLE_NUMBER = {"type": ["number", "null"]}
_NULLABLE_TEXT = {"type": ["string", "null"]}
_STATUSES = [
    "created", "queued", "starting", "running", "paused", "stopping", "restarting", "completed", "failed", "stopped",
]  # fmt: skip


def description() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sage_nb JobManager",
            "version": sage_nb.__version__,
            "description": "Runs pipelines that notebooks submit. Errors are of the form of the schema `Error`.",
        },
        "security": [{"token": []}],
        "paths": {
            "/health": {"get": {**_get("Whether the server is well", "Health"), "security": []}},
            "/metrics": {"get": _text("Numbers for Prometheus")},
            "/openapi.json": {"get": _get("This description", None)},
            "/v1/server": {"get": _get("What the server is, and what it does", "Server")},
            "/v1/jobs": {"get": _get("All jobs, the oldest first", "Summaries")},
            "/v1/jobs/{job}": {
                "get": _get("A job", "Job", _WHICH),
                "put": _submit(),
                "delete": _order(
                    "Forget a job that has ended",
                    {"name": "force", "in": "query", "schema": {"type": "boolean"}, "description": "Stop it first."},
                ),
            },
            "/v1/jobs/{job}/pause": {"post": _order("Hold a job before its next item")},
            "/v1/jobs/{job}/continue": {"post": _order("Let a paused job go on")},
            "/v1/jobs/{job}/stop": {"post": _stop()},
            "/v1/jobs/{job}/snapshot": {"get": _get("All that a view of the job shows", None, _WHICH)},
            "/v1/jobs/{job}/states": {"get": _get("The states that it went through", "States", _WHICH)},
            "/v1/jobs/{job}/logs": {"get": _get("The last lines of its log", "Lines", _WHICH, _count())},
            "/v1/jobs/{job}/payload": {"get": _bytes("The pipeline as it was submitted", _WHICH)},
            "/v1/watch": {"get": _watch()},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _get(summary: str, schema: str | None, *parameters: dict[str, Any]) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"} if schema else {"type": "object"}}
    return _described(summary, parameters, {"application/json": content})


def _text(summary: str) -> dict[str, Any]:
    return _described(summary, (), {"text/plain": {"schema": {"type": "string"}}})


def _bytes(summary: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    return _described(summary, parameters, {"application/octet-stream": {}})


def _described(summary: str, parameters: tuple[dict[str, Any], ...], content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": "It.", "content": content}}}
    found["responses"]["default"] = _failure()
    if parameters:
        found["parameters"] = list(parameters)
    return found


def _failure() -> dict[str, Any]:
    return {
        "description": "Why not.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _order(summary: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    done = {"description": "Done.", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {
        "summary": summary,
        "parameters": [_WHICH, _REPEAT, *parameters],
        "responses": {"200": done, "default": _failure()},
    }


def _stop() -> dict[str, Any]:
    properties = {
        "timeout": {"type": "number", "minimum": 0, "maximum": 86400, "default": 10},
        "wait": {"type": "boolean", "default": True, "description": "Whether to answer after the cleanup only."},
    }
    return {
        **_order("Stop a job; the answer is what has become of it"),
        "requestBody": {"content": {"application/json": {"schema": {"type": "object", "properties": properties}}}},
    }


def _submit() -> dict[str, Any]:
    body = {"description": "The job.", "content": {"application/json": {"schema": {"$ref": _ref("Job")}}}}
    return {
        "summary": "Submit a pipeline under a uuid of the client's making; a repeat gives the job that there is",
        "parameters": [{**_JOB, "schema": {"type": "string", "format": "uuid"}}],
        "requestBody": {"required": True, "content": {"application/octet-stream": {}}},
        "responses": {"201": body, "200": body, "default": _failure()},
    }


def _count() -> dict[str, Any]:
    return {"name": "n", "in": "query", "schema": {"type": "integer", "minimum": 1, "default": 100}}


def _watch() -> dict[str, Any]:
    return {
        "summary": "A WebSocket: everything that happens to jobs, as it happens",
        "description": (
            'Say {"op": "watch", "sub": 1, "job": uuid} for a job, and {"op": "list"} for the list: '
            'then {"op": "jobs", "jobs": [...]} comes at once, with what GET /v1/jobs gives, and whenever the list or '
            "the state of a job has changed, four times a second at most."
        ),
        "parameters": [
            {"name": "client", "in": "query", "schema": {"type": "string"}},
            {"name": "format", "in": "query", "schema": {"type": "string", "enum": ["json"]}},
        ],
        "responses": {"101": {"description": "The connection is a WebSocket now."}, "default": _failure()},
    }


def _ref(name: str) -> str:
    return f"#/components/schemas/{name}"


def _schemas() -> dict[str, Any]:
    error = {"type": "object", "properties": {"type": {"type": "string"}, "text": {"type": "string"}}}
    summary: dict[str, Any] = {
        "uuid": {"type": "string", "format": "uuid"},
        "number": {"type": "integer"},
        "name": {"type": "string"},
        "status": {"type": "string", "enum": _STATUSES},
        "autostop": {"type": "boolean"},
        "start_time": _NULLABLE_NUMBER,
        "runtime": {"type": "number"},
        "restart_count": {"type": "integer"},
        "last_update": {"type": "number"},
        "error": _NULLABLE_TEXT,
        "position": {"type": ["integer", "null"]},
    }
    counts: dict[str, Any] = {
        "task_count": {"type": "integer"},
        "service_count": {"type": "integer"},
        "is_running": {"type": "boolean"},
    }
    full = {
        **summary,
        **counts,
        "dispatcher": {"type": "object", "properties": counts},
        "environment": {"type": "string"},
        "stop_time": _NULLABLE_NUMBER,
        "submit_time": {"type": "number"},
        "backend": {"type": "string"},
        "owner": _NULLABLE_TEXT,
        "note": _NULLABLE_TEXT,
    }
    state = {"time": {"type": "number"}, "attempt": {"type": "integer"}, "status": {"type": "string"}}
    line = {name: {"type": "string"} for name in ("level", "source", "text")}
    server = {
        **{name: {"type": "string"} for name in ("version", "python", "backend")},
        **{
            name: {"type": "integer"}
            for name in ("protocol", "pid", "max_running", "running", "queued", "known", "warm")
        },
        "uptime": {"type": "number"},
        "history_error": _NULLABLE_TEXT,
    }
    return {
        "Error": {"type": "object", "required": ["error"], "properties": {"error": error}},
        "Health": {"type": "object", "properties": {"status": {"type": "string", "enum": ["ok", "degraded"]}}},
        "Server": {"type": "object", "properties": server},
        "Summaries": {"type": "array", "items": {"type": "object", "properties": summary}},
        "Job": {"type": "object", "properties": full},
        "States": {
            "type": "array",
            "items": {"type": "object", "properties": {**state, "error": _NULLABLE_TEXT}},
        },
        "Lines": {
            "type": "array",
            "items": {"type": "object", "properties": {"time": {"type": "number"}, **line}},
        },
    }
