"""The benchmarks' project as the web servers load it."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.benchmarks.settings")
wsgi = get_wsgi_application()
http = get_asgi_application()

from django_workflow.asgi import workflow_application  # noqa: E402 - needs Django set up by the lines above

asgi = workflow_application(http)
