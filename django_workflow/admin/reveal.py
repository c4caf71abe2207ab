"""The page that shows what is hidden of a run: it asks why, and the answer holds the values.

`control.reveal` notes who asked and why. Nothing of it may be kept by caches, and the values stand in no address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.options import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_cache_control
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_workflow.admin.confirm import LONGEST_REASON
from django_workflow.admin.own_page import Crumb, own_page
from django_workflow.control import reveal
from django_workflow.presentation import values

if TYPE_CHECKING:
    from django_workflow.models import Run


class WhyForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("Why do you need to see it?"),
        max_length=LONGEST_REASON,
        help_text=gettext_lazy("It is noted in the history, with your name."),
        widget=forms.Textarea(attrs={"rows": 2, "cols": 60}),
    )


def reveal_page(admin: ModelAdmin[Any], request: HttpRequest, run: Run, run_url: str) -> HttpResponse:
    """GET asks; a POST with a reason shows payload, result and the steps' results. 403 without the permission."""
    if reveal.why_not(request.user):
        raise PermissionDenied
    form = WhyForm(request.POST if request.method == "POST" else None)
    shown: list[tuple[str, str]] = []
    if form.is_valid():
        revealed = reveal.reveal(run, by=request.user, reason=form.cleaned_data["reason"])
        names = dict(run.steps.values_list("step_id", "name"))
        shown = [
            (_("Payload"), values.laid_out(revealed.payload)),
            (_("Result"), values.laid_out(revealed.result)),
            *(
                (f"{number} {names.get(number, '')}", values.laid_out(value))
                for number, value in sorted(revealed.results.items())
            ),
        ]
    response = own_page(
        admin,
        request,
        "reveal.html",
        _("Hidden values of %s") % run,
        crumbs=[Crumb(str(run), run_url)],
        form=form,
        shown=shown,
        run_url=run_url,
    )
    patch_cache_control(response, private=True, no_store=True)
    return response
