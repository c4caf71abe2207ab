from __future__ import annotations

from typing import Any

from django import forms

from example_project.shop.complaints import Share
from example_project.shop.models import Order


class FulfilForm(forms.Form):
    order = forms.ModelChoiceField(Order.objects.all(), label="Order", empty_label=None)


class ReportForm(forms.Form):
    day = forms.DateField(
        label="Day",
        required=False,
        help_text="Empty: yesterday.",
        widget=forms.DateInput(attrs={"type": "date"}),
    )


class ComplaintForm(forms.Form):
    order = forms.ModelChoiceField(Order.objects.all(), label="Order", empty_label=None)
    text = forms.CharField(label="What is wrong", max_length=500, widget=forms.Textarea(attrs={"rows": 3}))


class RefundForm(forms.Form):
    """What the run of a complaint waits for: somebody's decision."""

    share = forms.ChoiceField(label="Give back", choices=Share.choices, widget=forms.RadioSelect)
    answer = forms.CharField(
        label="Answer to the customer", max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 3})
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        if values.get("share") == Share.NOTHING and not values.get("answer"):
            self.add_error("answer", "Whoever gets nothing back is told why.")
        return values
