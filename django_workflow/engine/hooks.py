"""The public address of webhooks: whoever knows it sends an event to its run, with any method.

The address is the secret. The request is kept when nobody waits yet, and each one answers one wait.
"""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from django_workflow.conf import get_settings
from django_workflow.engine.transport import EngineTransport
from django_workflow.errors import RunEnded
from django_workflow.protocol.headers import header_lists
from django_workflow.protocol.requests import Notify
from django_workflow.protocol.waits import WebhookEvent, encode_webhook


def _too_large(limit: int) -> JsonResponse:
    return JsonResponse({"error": f"The body is larger than {limit} bytes."}, status=413)


@csrf_exempt
@login_not_required
def hook(request: HttpRequest, run_id: str, event_id: str) -> HttpResponse:
    """Any request becomes the event of its webhook: 200, or 404 when the run is over or unknown."""
    limit = get_settings().max_payload_bytes
    body = request.read(limit + 1)
    if len(body) > limit:
        return _too_large(limit)
    event = WebhookEvent(
        method=request.method or "POST",
        header=header_lists(request.headers),
        body=body,
        proto=request.scheme or "https",
        host=request.get_host(),
        url=request.get_full_path(),
    )
    try:
        told = EngineTransport().send(Notify(event_id=event_id, run_id=run_id, body=encode_webhook(event)))
    except RunEnded as error:
        return JsonResponse({"error": str(error)}, status=404)
    return JsonResponse({"messageId": told[0].message_id})


urlpatterns = [path("<str:run_id>/<str:event_id>/", hook, name="hook")]
