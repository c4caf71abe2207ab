"""Filters of logs and dead letters, in the forms that people write, as the fields of requests.

Every filter that is given must hold; of several values of one, any will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from django_workflow.client.options import Instant, as_unix_seconds
from django_workflow.client.urls import workflow_url

Texts = str | Iterable[str]
"""One text or several."""


class RunFilters(TypedDict, total=False):
    """`workflow` is a name of this project or the URL of a foreign endpoint. Instants are aware datetimes or Unix
    seconds; `created_at` tells runs of one id apart, the others are both included."""

    run_ids: Texts | None
    workflow: Texts | None
    label: Texts | None
    caller_ip: Texts | None
    flow_control_key: Texts | None
    created_at: Instant | None
    from_date: Instant | None
    to_date: Instant | None


class LogFilters(RunFilters, total=False):
    """`state` is that of a run (RUN_FAILED) or of a step (STEP_RETRY); `host` and `path` are of the workflow's URL."""

    state: Texts | None
    message_id: Texts | None
    host: Texts | None
    path: Texts | None


class DeadLetterFilters(RunFilters, total=False):
    """`failure_state` is that of the failure callback (CALLBACK_FAIL). The dates are those of the failure."""

    failure_state: Texts | None
    response_status: int | None


_TEXTS = {
    "run_ids": "run_ids",
    "label": "labels",
    "caller_ip": "caller_ips",
    "flow_control_key": "flow_control_keys",
    "state": "states",
    "message_id": "message_ids",
    "host": "hosts",
    "path": "paths",
    "failure_state": "failure_states",
}
_INSTANTS = ("created_at", "from_date", "to_date")


def request_fields(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the request; filters that are None are not given. Raises ValueError for one that names nothing."""
    fields: dict[str, Any] = {}
    for name, value in filters.items():
        if value is None:
            continue
        if name in _INSTANTS:
            fields[name] = round(as_unix_seconds(value) * 1000)
        elif name == "workflow":
            fields["workflow_urls"] = tuple(map(workflow_url, texts(name, value)))
        elif name in _TEXTS:
            fields[_TEXTS[name]] = texts(name, value)
        else:
            fields[name] = value
    return fields


def texts(name: str, value: Texts) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else tuple(value)
    if not found or not all(found):
        raise ValueError(f"{name} is {found!r}, which names nothing; leave it away to mean all.")
    return found
