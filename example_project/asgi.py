"""The demo's ASGI application: Django, the WebSockets of the live widget and, under DEBUG, a workflow worker."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
http = get_asgi_application()

# Both need Django set up, so they are imported after the line above.
from django.conf import settings  # noqa: E402
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler  # noqa: E402

from django_workflow.asgi import workflow_application  # noqa: E402

if settings.DEBUG:
    # Daphne serves no static files; a site in production has a web server or WhiteNoise for them.
    http = ASGIStaticFilesHandler(http)

application = workflow_application(http)
