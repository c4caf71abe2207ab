"""Content-Security-Policy for every page of the demo, the admin included: nothing inline, nothing from elsewhere."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

POLICY = "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"


class ContentSecurityPolicy(MiddlewareMixin):
    """Works under WSGI and ASGI alike. A middleware that is synchronous only takes a thread for each request under
    ASGI, and one whose request is under way when daphne stops waits for the event loop for ever."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        # Django's own error pages of DEBUG are written with inline styles and scripts.
        if not (settings.DEBUG and response.status_code in (404, 500)):
            response.headers.setdefault("Content-Security-Policy", POLICY)
        return response
