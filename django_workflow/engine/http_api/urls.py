"""The URL of the engine's API, `v2/…`: below `qstash/` in a project, alone at the root of a development server."""

from __future__ import annotations

from django.urls import path, register_converter

from django_workflow.engine.http_api.views import engine_api


class EngineCall:
    """`v2` and all that follows, line breaks too: nothing of a path may make another page answer."""

    regex = r"v2(?:/[\s\S]*)?"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(EngineCall, "engine_call")

urlpatterns = [path("<engine_call:call>", engine_api, name="engine-api")]
