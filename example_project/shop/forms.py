from __future__ import annotations

from django import forms

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
