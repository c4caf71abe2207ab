"""The demo has settings of its own, so its tests run in a pytest process of their own: test_own_settings.py starts it.

By hand: `pytest --ds=example_project.settings tests/example_project/suite`.
"""

from __future__ import annotations

from django.conf import settings

collect_ignore = ["test_own_settings.py" if settings.SETTINGS_MODULE == "example_project.settings" else "suite"]
