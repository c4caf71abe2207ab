"""Pages of the admin that are no list and no form of Django's: rendered inside the site that they belong to.

Their templates extend `django_workflow/admin/page.html`, which has the site's header, its menu and the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import django
from django.contrib.admin.options import ModelAdmin
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse

if TYPE_CHECKING:
    from django.utils.functional import Promise


@dataclass(frozen=True, slots=True)
class Crumb:
    """A page on the way to this one."""

    text: str
    url: str


def own_page(
    admin: ModelAdmin[Any],
    request: HttpRequest,
    template: str,
    title: str | Promise,
    *,
    crumbs: Sequence[Crumb] = (),
    status: int = 200,
    **context: Any,
) -> TemplateResponse:
    """The page `django_workflow/admin/<template>`; a project's own `admin/django_workflow/<template>` goes before it.

    `crumbs` are the pages between the model's list and this page.
    """
    request.current_app = admin.admin_site.name
    return TemplateResponse(
        request,
        [f"admin/django_workflow/{template}", f"django_workflow/admin/{template}"],
        {
            **admin.admin_site.each_context(request),
            "title": title,
            "opts": admin.model._meta,
            "media": admin.media,
            "crumbs": crumbs,
            "crumbs_are_a_list": django.VERSION >= (6, 1),
            **context,
        },
        status=status,
    )


def admin_url(admin: ModelAdmin[Any], name: str, *args: Any, query: dict[str, str] | None = None) -> str:
    """The address of a page of this app in the site of `admin`: `run_changelist`, `schedule_change` and so on."""
    url = reverse(f"admin:django_workflow_{name}", args=args, current_app=admin.admin_site.name)
    return f"{url}?{_query(query)}" if query else url


def _query(parameters: dict[str, str]) -> str:
    from django.http import QueryDict

    found = QueryDict(mutable=True)
    found.update(parameters)
    return found.urlencode()
