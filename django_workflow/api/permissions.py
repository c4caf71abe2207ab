"""Who may do what: staff with the permission of the action; a run's owner may read and answer that run.

A project that wants other rules subclasses the views and their `permission_classes`, or mounts its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from django_workflow.presentation import lookup

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet


def may(user: Any, codename: str) -> bool:
    """Whether a user may act in general: is active staff and holds the permission `django_workflow.<codename>`."""
    return bool(user and user.is_active and user.is_staff and user.has_perm(f"django_workflow.{codename}"))


def visible_runs(user: Any) -> RunQuerySet:
    """The runs that a user may read: all with `view_run`, else his own."""
    runs = lookup.runs()
    return runs if may(user, "view_run") else runs.filter(owner=user.pk)


class HasActionPermission(BasePermission):
    """Staff with any of the view's `action_permissions`."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        codenames: tuple[str, ...] = getattr(view, "action_permissions", ())
        return any(may(request.user, codename) for codename in codenames)
