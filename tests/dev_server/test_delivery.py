"""What the server does for SDKs: it delivers, signed; it keeps queues and schedules; it says what happens."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64encode
from pathlib import Path

import jwt
import pytest

from tests.dev_server.processes import Destination, DevServerProcess, Received


def publish(server: DevServerProcess, url: str, **headers: str) -> str:
    """Publish a JSON body there; the message's id."""
    named = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    answer = server.call("POST", f"/v2/publish/{url}", content=b'{"n": 1}', headers=named)
    assert answer.status_code < 300, answer.text
    message_id: str = answer.json()["messageId"]
    return message_id


def claims_of(delivery: Received, key: str) -> dict[str, object]:
    token = delivery.headers["Upstash-Signature"]
    return jwt.decode(
        token, key, algorithms=["HS256"], issuer="Upstash", options={"require": ["iss", "sub", "exp", "nbf"]}
    )


def test_a_message_to_this_machine_arrives_with_a_valid_signature(
    server: DevServerProcess, destination: Destination
) -> None:
    url = f"{destination.url}/hook?x=1"
    message_id = publish(server, url, Upstash_Forward_X_Mine="mine")
    delivery = destination.received()
    assert (delivery.method, delivery.path, delivery.body) == ("POST", "/hook?x=1", b'{"n": 1}')
    assert delivery.headers["X-Mine"] == "mine"
    assert delivery.headers["Upstash-Message-Id"] == message_id
    claims = claims_of(delivery, server.variables["QSTASH_CURRENT_SIGNING_KEY"])
    assert claims["sub"] == url
    digest = urlsafe_b64encode(hashlib.sha256(delivery.body).digest()).decode()
    assert str(claims["body"]).rstrip("=") == digest.rstrip("=")


def test_a_token_may_stand_in_the_query_and_is_told_to_nobody(
    server: DevServerProcess, destination: Destination
) -> None:
    token = server.variables["QSTASH_TOKEN"]
    path = f"/v2/publish/{destination.url}/query?qstash_token={token}&y=2"
    assert server.call("POST", path, headers={"Authorization": ""}).status_code < 300
    assert destination.received().path == "/query?y=2"
    assert token not in server.line(r"in .*/query\?y=2")


def test_queues_and_schedules_answer(server: DevServerProcess, destination: Destination) -> None:
    assert server.call("POST", "/v2/queues", json={"queueName": "mail", "parallelism": 2}).status_code == 200
    assert server.call("GET", "/v2/queues/mail").json()["parallelism"] == 2
    assert server.call("POST", f"/v2/enqueue/mail/{destination.url}/queued").status_code < 300
    assert destination.received().path == "/queued"

    made = server.call("POST", f"/v2/schedules/{destination.url}/nightly", headers={"Upstash-Cron": "0 3 * * *"})
    schedule_id = made.json()["scheduleId"]
    assert [found["scheduleId"] for found in server.call("GET", "/v2/schedules").json()] == [schedule_id]
    assert server.call("DELETE", f"/v2/schedules/{schedule_id}").status_code == 200


def test_long_destinations_and_headers_pass(server: DevServerProcess, destination: Destination) -> None:
    path = "/" + "a" * 20_000
    publish(server, destination.url + path, Upstash_Forward_X_Long="b" * 30_000)
    delivery = destination.received()
    assert delivery.path == path
    assert len(delivery.headers["X-Long"]) == 30_000


def test_keys_can_be_rotated_and_come_back_with_the_next_start(folder: Path) -> None:
    with DevServerProcess("--port=0", "--database=runs.sqlite3", temporary=folder) as server:
        server.ready()
        before = server.call("GET", "/v2/keys").json()
        rotated = server.call("POST", "/v2/keys/rotate").json()
        assert rotated["current"] == before["next"]
    with DevServerProcess("--port=0", "--database=runs.sqlite3", temporary=folder) as server:
        assert server.ready().call("GET", "/v2/keys").json() == before


# What is kept


def test_a_named_database_keeps_what_was_published(folder: Path) -> None:
    later = {"Upstash_Delay": "1h"}
    with DevServerProcess("--port=0", "--database=runs.sqlite3", temporary=folder) as server:
        message_id = publish(server.ready(), "http://127.0.0.1:9/later", **later)
    with DevServerProcess("--port=0", "--database=runs.sqlite3", temporary=folder) as server:
        assert server.ready().call("GET", f"/v2/messages/{message_id}").json()["url"] == "http://127.0.0.1:9/later"


def test_without_one_a_restart_has_forgotten_it(folder: Path) -> None:
    with DevServerProcess("--port=0", temporary=folder) as server:
        message_id = publish(server.ready(), "http://127.0.0.1:9/later", Upstash_Delay="1h")
        assert server.call("GET", f"/v2/messages/{message_id}").status_code == 200
    with DevServerProcess("--port=0", temporary=folder) as server:
        assert server.ready().call("GET", f"/v2/messages/{message_id}").status_code == 404


def test_a_delivery_under_way_holds_up_no_end_and_is_made_again(folder: Path, destination: Destination) -> None:
    destination.open.clear()
    with DevServerProcess("--port=0", "--database=runs.sqlite3", temporary=folder) as server:
        message_id = publish(server.ready(), f"{destination.url}/slow")
        destination.received()
        assert server.end(timeout=5) == 0
        assert "Traceback" not in server.output
    destination.open.set()
    with DevServerProcess("--port=0", "--database=runs.sqlite3", temporary=folder) as server:
        server.ready()
        assert destination.received().headers["Upstash-Message-Id"] == message_id


# What is said


def test_each_delivery_is_a_line(server: DevServerProcess, destination: Destination) -> None:
    publish(server, f"{destination.url}/told")
    assert re.search(r"^\d\d:\d\d:\d\d  in   POST +2\d\d +[\d.]+ m?s  /v2/publish/http", server.line(r"in .*/told$"))
    assert re.search(rf"out  POST +200 +[\d.]+ m?s  {destination.url}/told$", server.line(r"out .*/told"))


def test_a_failed_attempt_says_why_and_how_many_are_left(server: DevServerProcess, destination: Destination) -> None:
    destination.statuses = [500]
    publish(server, f"{destination.url}/failing", Upstash_Retries="1", Upstash_Retry_Delay="1")
    assert "500" in server.line(r"out .*/failing  attempt 1 of 2: ok$")
    assert "200" in server.line(r"out .*/failing  attempt 2 of 2$")


def test_a_refused_call_says_why(server: DevServerProcess) -> None:
    server.call("GET", "/v2/no/such/thing")
    assert "404" in server.line(r"in .*/v2/no/such/thing  The engine has no GET /v2/no/such/thing\.$")


def test_quiet_says_nothing_of_them(folder: Path, destination: Destination) -> None:
    with DevServerProcess("--port=0", "--quiet", temporary=folder) as server:
        publish(server.ready(), f"{destination.url}/quiet")
        destination.received()
        server.end()
        assert server.output.endswith("Stop   Ctrl-C\n")


def test_a_run_is_told_from_its_start_to_its_end(server: DevServerProcess, destination: Destination) -> None:
    """While the endpoint is being called, the test submits what an SDK would."""
    destination.open.clear()
    url = f"{destination.url}/workflow"
    started = server.call("POST", f"/v2/trigger/{url}", json={"n": 1})
    run_id = started.json()["workflowRunId"]
    destination.received()
    step = {
        "destination": url,
        "headers": {
            "Upstash-Workflow-Init": "false",
            "Upstash-Workflow-RunId": run_id,
            "Upstash-Workflow-Url": url,
            "Upstash-Workflow-CallType": "step",
        },
        "body": json.dumps({"stepId": 1, "stepName": "greet", "stepType": "Run", "out": '"hello"', "concurrent": 1}),
    }
    submitted = server.call("POST", "/v2/batch", json=[step])
    assert submitted.status_code == 200, submitted.text
    server.line(rf"run  started +{run_id}  {url}")
    server.line(rf"run  step +{run_id}  greet")
    server.call("DELETE", f"/v2/workflows/runs/{run_id}?cancel=false", content=b'"done"')
    server.line(rf"run  success +[\d.]+ m?s  {run_id}  {url}")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
def test_a_web_page_of_elsewhere_may_not_publish(server: DevServerProcess, origin: str) -> None:
    answer = server.call("POST", "/v2/publish/https://example.com", headers={"Origin": origin})
    assert answer.status_code == 403
    assert origin in answer.json()["error"]


@pytest.mark.parametrize(
    "sent", [{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, {"Origin": "https://evil.example"}]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nor_may_it_by_an_image_or_a_link(
    server: DevServerProcess, destination: Destination, method: str, sent: dict[str, str]
) -> None:
    """Any method publishes, and the public token may stand in the query. Browsers send no Origin with an image."""
    path = f"/v2/publish/{destination.url}/image?qstash_token={server.variables['QSTASH_TOKEN']}"
    assert server.call(method, path, headers={"Authorization": "", **sent}).status_code == 403
    near = {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:3000"}
    assert server.call("GET", path, headers={"Authorization": "", **near}).status_code == 200
    assert destination.received().path == "/image"


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:5173", "http://[::1]:3000"])
def test_a_page_of_this_machine_may(server: DevServerProcess, destination: Destination, origin: str) -> None:
    publish(server, f"{destination.url}/page", Origin=origin)
    assert destination.received().path == "/page"


def test_a_name_that_points_here_from_elsewhere_is_refused(server: DevServerProcess) -> None:
    """Otherwise a page could read everything: its browser takes both for one site (DNS rebinding)."""
    assert server.call("GET", "/v2/keys", headers={"Host": "rebound.evil.example"}).status_code == 400
    assert server.call("GET", "/v2/keys", headers={"Host": f"host.docker.internal:{server.port}"}).status_code == 200
