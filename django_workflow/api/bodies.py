"""Bodies as their bytes. A trigger's body is the payload and is kept as it came; DRF's parsers would re-write it."""

from __future__ import annotations

from django.core.handlers.asgi import ASGIRequest
from django.utils.translation import gettext as _
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.request import Request

from django_workflow.api.errors import LengthRequired, TooLarge
from django_workflow.conf import get_settings


def read_json_body(request: Request, *, wrapping: int = 0) -> bytes:
    """The body of a JSON request, by `read()`: `request.body` has Django's limit, we have `max_payload_bytes`.

    `wrapping`: how many bytes around the value itself are allowed for.
    Other types are refused (415): a page of another site can send those without asking first.
    """
    meta, limit = request.META, get_settings().max_payload_bytes + wrapping
    chunked = "chunked" in meta.get("HTTP_TRANSFER_ENCODING", "").lower()
    if chunked and not meta.get("CONTENT_LENGTH") and not isinstance(request._request, ASGIRequest):
        raise LengthRequired(_("Chunked bodies are lost under WSGI. Send a Content-Length."))
    body = request._request.read(limit + 1)
    if len(body) > limit:
        raise TooLarge(_("The body is larger than max_payload_bytes (%d).") % (limit - wrapping))
    kind = request.content_type.partition(";")[0].strip().lower()
    if body and kind != "application/json":
        raise UnsupportedMediaType(
            kind or "none", _("Send the body as application/json, not as %s.") % (kind or "none")
        )
    return bytes(body)
