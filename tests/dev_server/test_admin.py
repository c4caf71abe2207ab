"""The admin of the development server, with the login that it prints."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from tests.dev_server.processes import DevServerProcess


def test_the_printed_login_opens_the_list_of_runs(server: DevServerProcess) -> None:
    found = re.search(r"^Admin +(\S+) \((\S+) / (\S+)\)$", server.output, re.MULTILINE)
    assert found
    url, name, password = found.groups()
    with httpx.Client(follow_redirects=True) as browser:
        page = browser.get(url).text
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert token
        login = {"username": name, "password": password, "csrfmiddlewaretoken": token[1], "next": "/admin/"}
        assert "Workflows" in browser.post(f"{url}login/", data=login).text
        assert browser.get(f"{url}django_workflow/run/").status_code == 200
        assert browser.get(f"{server.url}/static/admin/css/base.css").status_code == 200


def test_a_password_of_a_server_that_others_reach_is_a_secret(folder: Path) -> None:
    with DevServerProcess("--port=0", "--host=0.0.0.0", temporary=folder) as public:
        found = re.search(r"\(admin / (\S+)\)", public.ready().output)
        assert found
        assert len(found[1]) >= 16
        assert public.url.startswith("http://127.0.0.1:")
        assert public.call("GET", "/v2/keys", headers={"Host": "qstash.internal"}).status_code == 200


def test_somebody_who_opens_the_address_is_told_what_is_there(server: DevServerProcess) -> None:
    assert "/admin/" in httpx.get(server.url).text
