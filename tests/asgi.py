"""The test project as an ASGI application, for tests that serve it."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
http = get_asgi_application()

from django_workflow.asgi import workflow_application  # noqa: E402 - needs Django set up by the line above

application = workflow_application(http)
