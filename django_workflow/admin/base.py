"""What the admin pages share: read-only rights, the style sheet, and the cells of their tables as safe HTML."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin
from django.contrib.admin import AdminSite
from django.contrib.admin.exceptions import NotRegistered
from django.contrib.admin.utils import quote
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from django_workflow.conf import get_settings
from django_workflow.models import Run
from django_workflow.presentation.words import short_run_id

M = TypeVar("M", bound=models.Model)

if TYPE_CHECKING:

    class _ModelAdmin(admin.ModelAdmin[M]): ...
else:

    class _ModelAdmin(admin.ModelAdmin):
        """Django's own takes type arguments in the stubs only."""

        def __class_getitem__(cls, item):
            return cls


class ReadOnlyAdmin(_ModelAdmin[M]):
    """Rows are looked at and, with that permission, deleted; never added or edited."""

    list_per_page = 50
    show_full_result_count = False
    empty_value_display = mark_safe('<span class="wfa-none">-</span>')

    class Media:
        css = {"all": ["django_workflow/admin.css", "django_workflow/admin_pages.css"]}
        js = ["django_workflow/admin.js"]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[M]:
        return super().get_queryset(request).using(get_settings().database)

    def get_fields(self, request: HttpRequest, obj: M | None = None) -> Any:
        """Those that say something about the row: the others would read "None"."""
        names = super().get_fields(request, obj)
        return names if obj is None else [name for name in names if self._value(name, obj) not in (None, "")]

    def _value(self, name: Any, obj: M) -> Any:
        own = getattr(self, name, None)
        return own(obj) if callable(own) else getattr(obj, name)

    def row_context(self, request: HttpRequest, row: M) -> dict[str, Any]:
        """What the page of a row needs beside what Django gives to its template."""
        return {}

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: M | None = None,
    ) -> HttpResponse:
        if obj is not None:
            context |= self.row_context(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False


def time_cell(instant: datetime | None) -> SafeString | None:
    """An instant in the reader's time zone and language (of today: its time alone), and exactly in its attributes."""
    if instant is None:
        return None
    local = timezone.localtime(instant)
    is_today = local.date() == timezone.localdate()
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        local.isoformat(),
        local.isoformat(sep=" ", timespec="milliseconds"),
        formats.date_format(local, "TIME_FORMAT" if is_today else "SHORT_DATETIME_FORMAT"),
    )


def run_link(run: Run | None, site: AdminSite | None = None) -> SafeString | None:
    """A run's short id, linked to its page in that site (None: the default one)."""
    if run is None:
        return None
    return format_html(
        '<a class="wfa-id" href="{}" title="{}">{}</a>', run_url(run, site), run.run_id, short_run_id(run.run_id)
    )


def run_url(run: Run, site: AdminSite | None = None) -> str:
    name = None if site is None else site.name
    return reverse("admin:django_workflow_run_change", args=[run.pk], current_app=name)


def url_or_blank(name: str, *args: Any) -> str:
    """The address of a page; "" where this project has no such page."""
    try:
        return reverse(name, args=args)
    except NoReverseMatch:
        return ""


def copy_button(text: str) -> SafeString:
    """A button that copies a text; without a clipboard or JavaScript it is not shown."""
    return format_html(
        '<button type="button" class="wfa-copy wfa-copy-icon" data-copy="{}" data-done="{}" title="{}">'
        '<svg class="wfa-icon" width="16" height="16" viewBox="0 0 16 16" aria-hidden="true" focusable="false">'
        '<path d="M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3"/></svg><span class="visually-hidden">{}</span></button>',
        text,
        _("Copied"),
        _("Copy the run id"),
        _("Copy the run id"),
    )


def object_url(site: AdminSite, request: HttpRequest, found: models.Model) -> str:
    """The page of an object of the project in that site; "" where it has none, or the user may not see it."""
    try:
        owner = site.get_model_admin(type(found))
    except NotRegistered:
        return ""
    if not owner.has_view_or_change_permission(request, found):
        return ""
    name = f"admin:{found._meta.app_label}_{found._meta.model_name}_change"
    return reverse(name, args=[quote(found.pk)], current_app=site.name)


def realtime_source() -> str:
    """The folder of the realtime URLs, which the browser's transports start from; "" when the project has none."""
    return url_or_blank("django_workflow:realtime-poll").removesuffix("poll/")


def preformatted(text: str) -> SafeString | None:
    """Text as it is, in its lines; never as HTML."""
    return format_html('<pre class="wfa-pre">{}</pre>', text) if text else None
