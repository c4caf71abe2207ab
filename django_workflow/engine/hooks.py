"""The public address of webhooks: whoever knows it sends an event to its run, with any method.

The address is the secret. The request is kept when nobody waits yet, and each one answers one wait.
"""

from __future__ import annotations

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from django_workflow.conf import get_settings
from django_workflow.engine.transport import EngineTransport
from django_workflow.errors import RequestRejected, RunEnded
from django_workflow.machine_views import MetaHeaders, machine_view, read_body
from django_workflow.protocol.headers import header_lists
from django_workflow.protocol.requests import Notified, Notify
from django_workflow.protocol.waits import WebhookEvent, encode_webhook


def receive(run_id: str, event_id: str, event: WebhookEvent) -> Notified:
    """Give the call of a webhook to its run, or keep it for the run's next wait. Raises RunEnded with status 404."""
    try:
        return EngineTransport().send(Notify(event_id=event_id, run_id=run_id, body=encode_webhook(event)))[0]
    except RunEnded as error:
        raise RunEnded(str(error), run_id=run_id, status=404) from error


@machine_view
def hook(request: HttpRequest, run_id: str, event_id: str) -> HttpResponse:
    """Any request becomes the event of its webhook: 200, or 404 when the run is over or unknown."""
    try:
        event = WebhookEvent(
            method=request.method or "POST",
            header=header_lists(MetaHeaders(request.META)),
            body=read_body(request, get_settings().max_payload_bytes),
            proto=request.scheme or "https",
            host=request.get_host(),
            url=request.get_full_path(),
        )
        told = receive(run_id, event_id, event)
    except RequestRejected as error:
        return _refused(error.status_code, str(error))
    except RunEnded as error:
        return _refused(error.status, str(error))
    except (OperationalError, InterfaceError):
        return _refused(503, "The database does not answer. Try again.")
    return JsonResponse({"messageId": told.message_id})


def _refused(status: int, text: str) -> JsonResponse:
    return JsonResponse({"error": text}, status=status)


urlpatterns = [path("<str:run_id>/<str:event_id>/", hook, name="hook")]
