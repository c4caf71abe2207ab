"""Lengths of time in the reader's language, for the widget and for the pages of people."""

from __future__ import annotations

from datetime import timedelta

from django.utils import formats
from django.utils.translation import gettext as _


def length_text(length: timedelta) -> str:
    """A length in its two greatest units: `340 ms`, `2.1 s`, `3 min 20 s`, `6 d 3 h`."""
    seconds = max(length.total_seconds(), 0.0)
    if seconds < 0.9995:
        return _("%d ms") % round(seconds * 1000)
    if seconds < 59.95:
        return _("%s s") % formats.number_format(round(seconds, 1), decimal_pos=1)
    whole = round(seconds)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, _("%d d")), (hours, _("%d h")), (minutes, _("%d min")), (whole, _("%d s"))]
    first = next(index for index, (number, _unit) in enumerate(parts) if number)
    return " ".join(unit % number for number, unit in parts[first : first + 2] if number)
