"""The words of the progress widget, once for the server's HTML and the browser's updates.

Placeholders stand in braces. The browser gets all of them with the script, in the language of the page.
"""

from __future__ import annotations

import re

from django.utils.translation import gettext, gettext_noop

LABELS = {
    # what the whole run does
    "not-started": gettext_noop("Not started"),
    "refused": gettext_noop("Not started: {error}"),
    "starting": gettext_noop("Starting..."),
    "scheduled": gettext_noop("Starts at {time}"),
    "queued": gettext_noop("Waiting to start"),
    "working": gettext_noop("Running"),
    "between": gettext_noop("Steps done: {count}"),
    "running": gettext_noop("Step {number}: {name}"),
    "sleeping": gettext_noop("Paused until {time}"),
    "paused": gettext_noop("Paused"),
    "waiting": gettext_noop("Needs your answer"),
    "retrying": gettext_noop("Problem in {name}, trying again at {time} ({attempt} of {attempts})"),
    "retrying-uncounted": gettext_noop("Problem in {name}, trying again at {time}"),
    "success": gettext_noop("Done"),
    "failed": gettext_noop("Failed in {name}"),
    "canceled": gettext_noop("Canceled"),
    "forbidden": gettext_noop("You cannot see this run"),
    "gone": gettext_noop("This run no longer exists"),
    "offline": gettext_noop("Connection lost - showing the state of {time}"),
    "earlier": gettext_noop("Earlier steps: {count}"),
    # what a step does
    "step-queued": gettext_noop("Waiting to start"),
    "step-running": gettext_noop("Running"),
    "step-retrying": gettext_noop("Trying again"),
    "step-waiting": gettext_noop("Waiting"),
    "step-sleeping": gettext_noop("Paused"),
    "step-success": gettext_noop("Done"),
    "step-failed": gettext_noop("Failed"),
    "step-canceled": gettext_noop("Canceled"),
    # answering
    "answer-sent": gettext_noop("Answer sent"),
    "answer-taken": gettext_noop("Somebody else has answered already"),
    "answer-failed": gettext_noop("The answer was not sent: {error}"),
}

_PLACEHOLDER_RE = re.compile(r"\{(\w+)\}")


def label(key: str, **values: object) -> str:
    """A label in the reader's language, its placeholders filled."""
    return _PLACEHOLDER_RE.sub(lambda found: str(values.get(found[1], "")), gettext(LABELS[key]))


def all_labels() -> dict[str, str]:
    """Every label in the language in force, with its placeholders."""
    return {key: gettext(text) for key, text in LABELS.items()}
