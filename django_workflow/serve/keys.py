"""Which keys may have signed a delivery, and the check of its signature.

The settings' keys win; those of a hosted region are chosen by the delivery's `Upstash-Region`. Without any the embedded
engine's own keys are asked for, through a provider that the composition root sets: this layer knows no models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from django.conf import settings as django_settings

from django_workflow.conf import get_settings
from django_workflow.errors import SignatureInvalid
from django_workflow.protocol import headers as h
from django_workflow.protocol import signature
from django_workflow.serve.endpoint import EndpointRequest

_provider: Callable[[], Sequence[str]] | None = None


def use_key_provider(provider: Callable[[], Sequence[str]] | None) -> None:
    """`provider` gives the keys that are valid now, the current one first; called for each request."""
    global _provider
    _provider = provider


def verification_keys(region: str | None = None) -> tuple[str, ...]:
    """The keys a signature may be made with, the current one first; empty when there are none at all.

    `region` is what the delivery says of itself. That is safe: it can only choose among the keys of this site.
    """
    settings = get_settings()
    configured = settings.credentials(region).signing_keys
    if configured or settings.is_hosted or _provider is None:
        return configured
    return tuple(_provider())


def verify(request: EndpointRequest) -> bool:
    """Check the signature of a request from the network. Raises SignatureInvalid with its reason.

    False: a hosted project under DEBUG that has no keys at all, so nothing was checked. Elsewhere a project without
    keys refuses (reason `no_keys`): it cannot tell the engine from anybody else. A system check says so at start-up.
    """
    keys = verification_keys(request.headers.get(h.REGION))
    if not keys:
        if django_settings.DEBUG and get_settings().is_hosted:
            return False
        raise SignatureInvalid(
            "This site has no signing keys, so it cannot tell who sent the request. Set current_signing_key and "
            "next_signing_key in DJANGO_WORKFLOW, or QSTASH_CURRENT_SIGNING_KEY and QSTASH_NEXT_SIGNING_KEY.",
            reason="no_keys",
        )
    signature.verify(
        request.headers.get(h.SIGNATURE),
        request.body,
        keys,
        time.time(),
        url=request.url,
        # Without `base_url` nobody but the engine knows under which origin it sees this site.
        compare_path_only=get_settings().base_url is None,
    )
    return True
