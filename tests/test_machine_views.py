from __future__ import annotations

from django_workflow.machine_views import MetaHeaders

META = {
    "CONTENT_TYPE": "application/json",
    "CONTENT_LENGTH": "",
    "HTTP_UPSTASH_WORKFLOW_RUNID": "wfr_1",
    "HTTP_X_USER": "grÃ¼n",  # UTF-8 bytes, as WSGI servers show them
    "HTTP_X_LATIN": "grün",
    "wsgi.input": object(),
    "django_workflow.session": object(),
    "SERVER_NAME": "localhost",
}


def test_names_are_found_in_any_letter_case() -> None:
    headers = MetaHeaders(META)
    assert headers["Upstash-Workflow-RunId"] == headers["upstash-workflow-runid"] == "wfr_1"
    assert headers["content-type"] == "application/json"
    assert headers.get("x-none") is None
    assert headers.get("x-none", "") == ""
    assert "X-USER" in headers
    assert "wsgi.input" not in headers
    assert "SERVER_NAME" not in headers


def test_utf8_values_are_read_as_sent() -> None:
    assert MetaHeaders(META)["X-User"] == "grün"
    assert MetaHeaders(META)["X-Latin"] == "grün"


def test_only_headers_are_listed() -> None:
    headers = MetaHeaders(META)
    assert dict(headers) == {
        "Content-Type": "application/json",
        "Upstash-Workflow-Runid": "wfr_1",
        "X-User": "grün",
        "X-Latin": "grün",
    }
    assert len(headers) == 4
