"""`{% load django_workflow %}{% workflow_progress run %}`: a run's live progress in any page."""

from __future__ import annotations

import json
from typing import Any

from django import template
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from django_workflow.models import Run
from django_workflow.realtime.labels import all_labels
from django_workflow.realtime.widget import MAX_STEPS, TRANSPORTS, VIEWS, Options, Widget, make_widget, render_widget

register = template.Library()

_ASSETS_PRINTED = "_django_workflow_assets"


@register.simple_tag(takes_context=True)
def workflow_progress(
    context: template.Context,
    run: object,
    view: str = "steps",
    can_respond: bool = False,
    *,
    grant: bool | None = None,
    transport: str = "auto",
    max_steps: int = MAX_STEPS,
    redirect_on_success: str = "",
) -> SafeString:
    """The progress of a run: a Run, a handle, a run id, or None for one that is not started yet.

    `view` is steps, bar, badge or timeline. `can_respond` adds the form for answers, for those who may answer. A Run or
    handle comes from the page's own code, so its viewer may follow it; an id may come from anywhere, so the viewer must
    be allowed by `realtime_authorize`. `grant` overrides both: True lets this page's viewer follow the run, and answer
    it with `can_respond`; False asks the rule in any case. Script and stylesheet are printed with the first widget of a
    page, unless `{% workflow_progress_assets %}` did.
    """
    if view not in VIEWS:
        raise template.TemplateSyntaxError(
            f"workflow_progress: view is {view!r}, but must be one of {', '.join(VIEWS)}."
        )
    if transport not in TRANSPORTS:
        raise template.TemplateSyntaxError(
            f"workflow_progress: transport is {transport!r}, but must be one of {', '.join(TRANSPORTS)}."
        )
    request: HttpRequest | None = context.get("request")
    options = Options(
        view=view,
        can_respond=bool(can_respond),
        grant_read=not isinstance(run, str) if grant is None else bool(grant),
        grant_respond=bool(grant),
        transport=transport,
        max_steps=max(1, int(max_steps)),
        redirect_on_success=redirect_on_success,
    )
    widget = make_widget(_run_id(run), getattr(request, "user", None), options, timezone.now())
    assets = "" if getattr(request, _ASSETS_PRINTED, False) else workflow_progress_assets(context)
    return render_widget(widget, request, assets)


@register.simple_tag(takes_context=True)
def workflow_progress_assets(context: template.Context) -> SafeString:
    """The widget's script, with its words, and stylesheet, for the page's head. Widgets do not print them again."""
    request: HttpRequest | None = context.get("request")
    if request is not None:
        setattr(request, _ASSETS_PRINTED, True)
    nonce = context.get("csp_nonce") or getattr(request, "csp_nonce", "")
    return render_to_string(
        "django_workflow/progress/assets.html", {"nonce": nonce, "labels": json.dumps(all_labels())}
    )


@register.simple_tag
def workflow_attributes(widget: Widget) -> SafeString:
    """The attributes of `<workflow-progress>`: what the browser needs to go on from here. Empty ones are left out."""
    options = widget.options
    attributes = {
        "class": f"wf wf-view-{options.view}",
        "run": widget.run_id,
        "workflow": widget.workflow,
        "status": widget.status,
        "cursor": widget.cursor,
        "src": widget.source,
        "view": options.view,
        "token": widget.token,
        "notify": widget.notify_url,
        "transport": options.transport if options.transport != "auto" else "",
        "max-steps": str(options.max_steps) if options.max_steps != MAX_STEPS else "",
        "redirect-on-success": options.redirect_on_success,
        "lang": widget.language,
        "time-zone": widget.time_zone,
    }
    respond = format_html(" {}", "respond") if widget.may_respond else ""
    named = format_html_join("", ' {}="{}"', ((key, value) for key, value in attributes.items() if value))
    return format_html("{}{}", named, respond)


def _run_id(run: Any) -> str | None:
    """The id of a Run, a handle (`.id`) or an id; None for nothing (also for an undefined variable)."""
    if run is None or run == "":
        return None
    if isinstance(run, str):
        return run
    if isinstance(run, Run):
        return run.run_id
    if isinstance(getattr(run, "id", None), str):
        return str(run.id)
    raise template.TemplateSyntaxError(
        f"workflow_progress takes a Run, a run handle, a run id or None, but got {type(run).__name__}."
    )
