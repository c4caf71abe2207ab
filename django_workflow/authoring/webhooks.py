"""The public address of a webhook, for `ctx.create_webhook`.

The embedded engine's stands at `hooks/` below this package's URLs, the hosted engine's below its own origin.
"""

from __future__ import annotations

import base64
import binascii

import msgspec
from django.urls import reverse

from django_workflow.client.session import current_region
from django_workflow.conf import get_settings
from django_workflow.errors import Misconfigured


class _Token(msgspec.Struct):
    user_id: str = msgspec.field(name="UserID")


def webhook_url(run_id: str, event_id: str) -> str:
    """Where the outside calls. Raises Misconfigured without a public address."""
    settings = get_settings()
    if settings.is_hosted:
        own = settings.credentials(current_region.get())
        return f"{own.url}/v2/workflows/hooks/{_user_id(own.token or '')}/{run_id}/{event_id}"
    if settings.base_url is None:
        raise Misconfigured(
            "ctx.create_webhook() makes an address that the outside can call, but this site does not know its own. Set "
            'base_url in DJANGO_WORKFLOW, such as "https://shop.example".'
        )
    return settings.base_url + reverse("django_workflow:hook", args=[run_id, event_id])


def _user_id(token: str) -> str:
    """Whose token it is: hosted tokens are base64 of JSON. Source: endpoint.md, section 8.10."""
    try:
        return msgspec.json.decode(base64.b64decode(token + "=" * (-len(token) % 4)), type=_Token).user_id
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise Misconfigured(
            f"Failed to decode QStash token while running create webhook step: {error}. Copy QSTASH_TOKEN again."
        ) from error
