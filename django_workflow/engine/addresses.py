"""Which addresses are this project's own endpoints, and which of them are served inside the worker's process."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from django_workflow.client.urls import INTERNAL_ORIGIN, workflow_path
from django_workflow.conf import get_settings
from django_workflow.errors import MessageInvalid, Misconfigured


def is_internal(url: str) -> bool:
    """Whether a delivery to `url` is served in this process."""
    return url.startswith(INTERNAL_ORIGIN + "/")


def is_served(url: str) -> bool:
    """Whether `url` is a workflow at the internal origin. Publishers must not reach other views from inside."""
    return _is_workflow(url, INTERNAL_ORIGIN)


def is_own(url: str) -> bool:
    """Whether `url` is one of this project's workflow endpoints, reached in process or over the network."""
    if is_internal(url):
        return True
    base_url = get_settings().base_url
    return base_url is not None and _is_workflow(url, base_url)


def _is_workflow(url: str, origin: str) -> bool:
    """Whether a URL is that of a workflow and of nothing beside it: `…/serve/../../admin/` would lead to any page."""
    prefix = origin + serve_prefix()
    if not url.startswith(prefix):
        return False
    path, slash, rest = url[len(prefix) :].partition("/")
    name = unquote(path)
    # Some server on the way may decode once more, so a percent sign is none of a name's.
    return bool(name and slash and not _NO_NAME_RE.search(name) and rest[:1] in ("", "?", "#"))


_NO_NAME_RE = re.compile(r"[/?#%]|(?:^|\\)\.\.?(?:\\|$)")


def check_destination(url: str) -> None:
    """Raise MessageInvalid for a URL that nothing can be delivered to."""
    reason = ""
    try:
        parts = urlsplit(url)
        if not parts.hostname or (parts.port is not None and not parts.port):
            reason = "It names no host."
    except ValueError as error:
        reason = f"{error}."
    if not reason and (_UNSENDABLE_RE.search(url) or url != url.encode("utf-8", "replace").decode()):
        reason = "It holds blanks or characters that cannot be sent; write them percent-encoded."
    if not reason and is_internal(url) and not is_served(url):
        reason = "It is no workflow, and nothing else is served inside the worker."
    if reason:
        raise MessageInvalid(f"{url[:500]!r} is no destination. {reason}", name="destination", value=url)


_UNSENDABLE_RE = re.compile(r"[\x00-\x20\x7f]")


def serve_prefix() -> str:
    """Path under which workflows are served, `/workflows/serve/`; `/serve/` when the URLs are not included."""
    try:
        return workflow_path("-").removesuffix("-/")
    except Misconfigured:
        return "/serve/"
