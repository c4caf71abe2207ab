"""A browser without JavaScript: it opens pages, follows redirects, and sends forms exactly as the page has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from django.test import Client


@dataclass
class Form:
    action: str
    values: dict[str, str] = field(default_factory=dict)
    buttons: dict[str, dict[str, str]] = field(default_factory=dict)
    """What a button adds to the values, by its text."""


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._select = ""
        self._button: dict[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(action=values.get("action", "")))
        elif not self.forms:
            return
        elif tag == "input" and "name" in values:
            self.forms[-1].values[values["name"]] = values.get("value", "")
        elif tag == "select":
            self._select = values["name"]
        elif tag == "option":
            self.forms[-1].values.setdefault(self._select, values["value"])
        elif tag == "button":
            self._button = {values["name"]: values["value"]} if "name" in values else {}

    def handle_endtag(self, tag: str) -> None:
        if tag == "button":
            self._button = None

    def handle_data(self, data: str) -> None:
        if self._button is not None and data.strip():
            self.forms[-1].buttons[data.strip()] = self._button


class Visitor:
    def __init__(self) -> None:
        self.client = Client(enforce_csrf_checks=True)
        self.url = ""
        self.html = ""

    def open(self, url: str) -> str:
        response = self.client.get(url)
        assert response.status_code == 200, f"{url}: {response.status_code}"
        self.url, self.html = url, response.content.decode()
        return self.html

    def press(self, text: str, /, **changed: str) -> str:
        """Press the first button of that text, after changing fields of its form; the page that follows."""
        parser = _Forms()
        parser.feed(self.html)
        form = next(form for form in parser.forms if text in form.buttons)
        action = form.action or self.url
        response = self.client.post(action, {**form.values, **changed, **form.buttons[text]})
        if response.status_code == 302:
            return self.open(response["Location"])
        self.url, self.html = action, response.content.decode()
        return self.html

    def can_press(self, text: str) -> bool:
        parser = _Forms()
        parser.feed(self.html)
        return any(text in form.buttons for form in parser.forms)
