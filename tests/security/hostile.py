"""Rows of every model whose every text is hostile, and a reader of pages that sees what a browser would.

The texts close whatever they may stand in (an attribute of either quote, a tag, a script, a comment, a textarea) and
then make an element and an attribute that no page of ours has.
"""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

from django.db import models

ELEMENT, ATTRIBUTE = "xss-element", "data-xss"
HOSTILE = (
    "\"'></textarea></title></script></style></pre>--><xss-element data-xss=1 onload=xss()>"
    "<script>document.documentElement.dataset.xss=1</script><img src=x onerror=xss()>{{7*7}}{% now 'Y' %}"
)
SHORT = "'\"><xss-element data-xss>"
AS_JSON = json.dumps({"text": HOSTILE, HOSTILE: [HOSTILE]})


def spoil(row: models.Model) -> None:
    """Write hostile text into every text column of a row, as long as it fits, and keep what has a meaning."""
    values: dict[str, Any] = {}
    for field in row._meta.concrete_fields:
        if not isinstance(field, models.CharField | models.TextField) or field.choices or field.name in KEPT:
            continue
        if field.name in JSON_COLUMNS:
            values[field.name] = AS_JSON
        elif field.max_length is None or field.max_length >= len(HOSTILE):
            values[field.name] = HOSTILE
        elif field.max_length >= len(SHORT):
            values[field.name] = SHORT
    type(row)._base_manager.filter(pk=row.pk).update(**values)
    row.refresh_from_db()


# What the engine itself makes and reads back: not what a stranger may write.
KEPT = {
    "config",
    "cron",
    "timezone",
    "method",
    "step_type",
    "kind",
    "state",
    "status",
    "labels",
    "channel",
    "name_hash",
    "pid_started",
    "run_id",
}
JSON_COLUMNS = {"payload", "result", "data", "response_headers", "headers"}


class Reader(HTMLParser):
    """Elements and attributes of a page that came out of a hostile text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.scripts: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_script = tag == "script"
        names = [name for name, _ in attrs]
        if tag.startswith("xss") or ATTRIBUTE in names or any(name.startswith("on") for name in names):
            self.found.append(f"<{tag} {attrs}>")
        for name, value in attrs:
            if name in ("href", "src", "action", "formaction") and (value or "").strip().lower().startswith(
                ("javascript:", "data:text/html")
            ):
                self.found.append(f"<{tag} {name}={value}>")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)


def injected(html: str) -> list[str]:
    """What of a page is not its own: injected elements, attributes, or hostile text run by a template or script."""
    reader = Reader()
    reader.feed(html)
    found = list(reader.found)
    found += [f"script: {text[:80]}" for text in reader.scripts if "<" in text]
    if "49{% now" in html:
        found.append("a template ran")
    return found
