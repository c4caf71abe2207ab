"""WebSocket URLs, for a `URLRouter`. Patterns are open at their start: ASGI does not know where URLs are included."""

from __future__ import annotations

from django.urls import re_path

from django_workflow.realtime.consumers import RealtimeConsumer

websocket_urlpatterns = [
    re_path(r"^(?:.+/)?realtime/ws/$", RealtimeConsumer.as_asgi(), name="realtime-ws"),
]
