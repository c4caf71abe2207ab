"""The admin pages. They show and act, but never edit state: what acts goes through the client, as user code does."""

from django_workflow.admin import (
    bulk_operations,
    channels,
    dead_letters,
    deliveries,
    flow_keys,
    inbox,
    runs,
    schedules,
    workers,
    workflows,
)

__all__ = [
    "bulk_operations",
    "channels",
    "dead_letters",
    "deliveries",
    "flow_keys",
    "inbox",
    "runs",
    "schedules",
    "workers",
    "workflows",
]
