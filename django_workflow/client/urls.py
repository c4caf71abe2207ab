"""Where workflows live: the URL that the engine calls.

A workflow's URL is `base_url` and the path of `django_workflow:serve`. Without `base_url` it stands at the internal
origin, which no network knows: the worker serves it inside its process. A project that is mounted below a path
(SCRIPT_NAME) writes that path into `base_url`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.urls import NoReverseMatch, get_script_prefix, reverse

from django_workflow.conf import get_settings
from django_workflow.errors import Misconfigured

INTERNAL_ORIGIN = "https://workflow.internal"


def workflow_url(workflow: str) -> str:
    """The absolute URL of a workflow's endpoint. A name that is a URL already (a foreign endpoint) stays as it is.

    Raises Misconfigured when the project's URLs do not include `django_workflow.urls`.
    """
    if "://" in workflow:
        return workflow
    return (get_settings().base_url or INTERNAL_ORIGIN) + workflow_path(workflow)


def workflow_path(workflow: str) -> str:
    """The path of a workflow's endpoint, without what the project is mounted below. Raises Misconfigured."""
    return _path(workflow, django_settings.ROOT_URLCONF)


def workflow_name(url: str) -> str:
    """The workflow's name as its URL tells it: the last piece of the path."""
    parts = urlsplit(url)
    pieces = [piece for piece in parts.path.split("/") if piece]
    return unquote(pieces[-1])[:200] if pieces else parts.netloc[:200]


def code_version_of(url: str) -> str:
    """The version of the code that answers a workflow's URL: this project's; "" for an endpoint elsewhere."""
    version = get_settings().code_version
    return version if version and url == workflow_url(workflow_name(url)) else ""


def is_internal(url: str) -> bool:
    """Whether a URL is served in process."""
    return url.startswith(INTERNAL_ORIGIN + "/")


# Replay and submission ask for the same few names over and over; reverse() costs more than the rest of a submission.
@lru_cache(maxsize=4096)
def _path(workflow: str, urlconf: str) -> str:
    try:
        path = reverse("django_workflow:serve", urlconf=urlconf, args=[workflow])
    except NoReverseMatch as error:
        raise Misconfigured(
            f"There is no URL for the workflow {workflow!r}: {error} "
            'Add path("workflows/", include("django_workflow.urls")) to the project\'s urls.py.'
        ) from error
    # The prefix belongs to the request that happens to run on this thread; the engine's URL must not depend on it.
    prefix = get_script_prefix()
    return "/" + path.removeprefix(prefix) if prefix != "/" else path


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("ROOT_URLCONF", "DJANGO_WORKFLOW", "FORCE_SCRIPT_NAME"):
        _path.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_workflow.client.urls")
