"""Why the development server does not start, in words for the person who started it."""

from __future__ import annotations


class CannotStart(Exception):
    """The text says what is in the way and what to do."""
