"""Messages outside workflows, with the client and the receiver of the Python `qstash`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.destination import Answer, Box, Received, decoded
from tests.interop.engine import Engine
from tests.interop.processes import Client, ClientError


def verify(py: Client, request: Received, url: str | None = None) -> None:
    """Raises ClientError unless the official receiver accepts the request."""
    code = "receiver.verify(signature=signature, body=body, url=url)"
    py(code, signature=request.signature, body=request.text, url=url)


def wait_for_state(py: Client, message_id: str, state: str) -> list[dict[str, Any]]:
    """The message's log, oldest entry first, as soon as one has the state."""
    logs: list[dict[str, Any]] = py(
        """
        import time
        from qstash.log import LogState

        for _ in range(500):
            logs = qstash.log.list(filter={"message_id": message_id}).logs
            if any(log.state is LogState(state) for log in logs):
                return logs[::-1]
            time.sleep(0.02)
        raise TimeoutError(f"{message_id} did not become {state}")
        """,
        message_id=message_id,
        state=state,
    )
    return logs


def test_a_message_is_delivered_as_it_was_published(py: Client, box: Box) -> None:
    message_id = py(
        """
        return qstash.message.publish_json(
            url=url, body={"word": "grüße ☃"}, method="PATCH", headers={"X-Mine": "yes"}, retries=2
        ).message_id
        """,
        url=f"{box.url}?a=1&b=x%2Fy",
    )
    got = box.one()
    assert (got.method, got.path, got.json) == ("PATCH", f"{box.path}?a=1&b=x%2Fy", {"word": "grüße ☃"})
    assert (got.headers["x-mine"], got.headers["upstash-message-id"]) == ("yes", message_id)
    verify(py, got)
    verify(py, got, f"{box.url}?a=1&b=x%2Fy")
    with pytest.raises(ClientError, match="SignatureError"):
        verify(py, Received(got.method, got.path, got.headers, b"{}"))


def test_a_message_of_bytes_and_without_a_type_stays_as_it_is(py: Client, box: Box) -> None:
    py("qstash.message.publish(url=url, body=bytes([0, 159, 255]), method='POST')", url=box.url)
    got = box.one()
    assert got.body == bytes([0, 159, 255])


def test_a_batch_holds_messages_of_every_kind(py: Client, box: Box, unique: str) -> None:
    grouped, queued = box.beside("group"), box.beside("queue")
    alone, (of_group,), of_queue = py(
        """
        qstash.url_group.upsert_endpoints(name, [{"url": grouped, "name": "only"}])
        return qstash.message.batch_json([
            {"url": url, "body": {"n": 1}},
            {"url_group": name, "body": {"n": 2}},
            {"url": queued, "queue": name, "body": {"n": 3}},
        ])
        """,
        name=unique,
        url=box.url,
        grouped=grouped.url,
        queued=queued.url,
    )
    assert [box.one().json, grouped.one().json, queued.one().json] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert of_group["url"] == grouped.url
    assert len({alone["message_id"], of_group["message_id"], of_queue["message_id"]}) == 3


def test_a_delayed_message_is_shown_and_cancelled(py: Client, box: Box, unique: str) -> None:
    before = time.time() * 1000
    message_id = py(
        """
        return qstash.message.publish_json(
            url=url, body={"n": 1}, delay="1h", retries=1, retry_delay="1000 * retried", label=key, timeout="30s",
            callback=url + "-called", failure_callback=url + "-failed", headers={"X-Mine": "yes"},
            flow_control={"key": key, "rate": 5, "parallelism": 3, "period": "1m"},
        ).message_id
        """,
        url=box.url,
        key=unique,
    )
    message = py("return qstash.message.get(message_id)", message_id=message_id)
    expected = {
        "message_id": message_id,
        "url": box.url,
        "method": "POST",
        "body": '{"n": 1}',
        "max_retries": 1,
        "retry_delay_expression": "1000 * retried",
        "callback": f"{box.url}-called",
        "failure_callback": f"{box.url}-failed",
        "label": unique,
    }
    assert {name: message[name] for name in expected} == expected
    assert message["headers"]["X-Mine"] == ["yes"]
    assert {name: message["flow_control"][name] for name in ("key", "rate", "parallelism", "period")} == {
        "key": unique,
        "rate": 5,
        "parallelism": 3,
        "period": 60,
    }
    assert before + 3_590_000 < message["not_before"] < before + 3_700_000
    py("qstash.message.cancel(message_id)", message_id=message_id)
    with pytest.raises(ClientError, match="404"):
        py("qstash.message.get(message_id)", message_id=message_id)
    states = [log["state"] for log in wait_for_state(py, message_id, "CANCELED")]
    assert states == ["CREATED", "CANCEL_REQUESTED", "CANCELED"]


def test_many_messages_are_cancelled_at_once(py: Client, box: Box) -> None:
    told = py(
        """
        publish = lambda: qstash.message.publish_json(url=url, body=1, delay=600).message_id
        ids = [publish() for _ in range(3)]
        many = qstash.message.cancel_many([*ids[:2], "msg_unknown"])
        return [many, qstash.message.cancel_many(ids[:2]), qstash.message.cancel_all() >= 1]
        """,
        url=box.url,
    )
    assert told == [2, 0, True]


def test_a_message_that_comes_twice_is_delivered_once(py: Client, box: Box, unique: str) -> None:
    told = py(
        """
        named = lambda: qstash.message.publish_json(url=url, body=1, deduplication_id=name)
        alike = lambda: qstash.message.publish_json(url=url + "-alike", body=1, content_based_deduplication=True)
        return [named(), named(), alike(), alike()]
        """,
        url=box.url,
        name=unique,
    )
    for first, second in (told[:2], told[2:]):
        assert (second["message_id"], second["deduplicated"]) == (first["message_id"], True)
    box.beside("alike").one()
    assert (len(box.wait()), len(box.beside("alike").received)) == (1, 1)


def test_a_failed_message_lies_in_the_dead_letter_queue(py: Client, box: Box, unique: str) -> None:
    failed, called = box.beside("failed"), box.beside("called")
    box.answers(Answer(500, b'{"no":1}'))
    message_id = py(
        """
        return qstash.message.publish_json(
            url=url, body={"n": 1}, retries=1, retry_delay="10", label=label, callback=called, failure_callback=failed,
            callback_headers={"Forward-X-Callback": "1"}, failure_callback_headers={"Forward-X-Failure": "2"},
        ).message_id
        """,
        url=box.url,
        label=unique,
        called=called.url,
        failed=failed.url,
    )
    callback, told = called.wait(2)[-1], failed.one()
    for request in (*box.wait(2), callback, told):
        verify(py, request)
    assert (callback.headers["x-callback"], told.headers["x-failure"]) == ("1", "2")
    assert (callback.json["status"], callback.json["retried"]) == (500, 1)
    assert decoded(told.json["sourceBody"]) == {"n": 1}

    (letter,) = py("return qstash.dlq.list(filter={'label': label}).messages", label=unique)
    assert letter["dlq_id"] == told.json["dlqId"]
    shown = py("return qstash.dlq.get(dlq_id)", dlq_id=letter["dlq_id"])
    assert (shown["message_id"], shown["response_status"], shown["response_body"]) == (message_id, 500, '{"no":1}')
    assert (shown["url"], shown["max_retries"], shown["body"]) == (box.url, 1, '{"n": 1}')
    py("qstash.dlq.delete(dlq_id)", dlq_id=letter["dlq_id"])
    with pytest.raises(ClientError, match="404"):
        py("qstash.dlq.delete(dlq_id)", dlq_id=letter["dlq_id"])
    assert py("return qstash.dlq.delete_many([dlq_id])", dlq_id=letter["dlq_id"]) == 0


def test_logs_tell_the_life_of_a_message(py: Client, box: Box, unique: str) -> None:
    box.answers(Answer(500), Answer(200, b'{"done":true}'))
    message_id = py(
        "return qstash.message.publish_json(url=url, body=1, label=label, retries=1, retry_delay='10').message_id",
        url=box.url,
        label=unique,
    )
    logs = wait_for_state(py, message_id, "DELIVERED")
    states = ["CREATED", "ACTIVE", "ERROR", "RETRY", "ACTIVE", "DELIVERED"]
    assert [log["state"] for log in logs] == states
    assert (logs[-1]["response_status"], decoded(logs[-1]["response_body"])) == (200, {"done": True})
    assert logs[0]["max_retries"] == 1
    pages = py(
        """
        from qstash.log import LogState
        pages, cursor = [], None
        while True:
            page = qstash.log.list(count=4, cursor=cursor, filter={"label": label})
            pages.append([log.state for log in page.logs])
            cursor = page.cursor
            if not cursor:
                delivered = qstash.log.list(filter={"label": label, "state": LogState.DELIVERED}).logs
                return {"pages": pages, "delivered": len(delivered)}
        """,
        label=unique,
    )
    newest_first = states[::-1]
    assert pages == {"pages": [newest_first[:4], newest_first[4:]], "delivered": 1}


def test_a_queue_delivers_in_order_while_it_is_not_paused(py: Client, box: Box, unique: str) -> None:
    made = py(
        """
        qstash.queue.upsert(name, parallelism=1, paused=True)
        for n in range(3):
            qstash.message.enqueue_json(queue=name, url=url, body={"n": n})
        made = qstash.queue.get(name)
        qstash.queue.resume(name)
        return made
        """,
        name=unique,
        url=box.url,
    )
    assert (made["name"], made["parallelism"], made["paused"], made["lag"]) == (unique, 1, True, 3)
    assert [request.json["n"] for request in box.wait(3)] == [0, 1, 2]
    told = py(
        """
        qstash.queue.pause(name)
        paused = qstash.queue.get(name).paused
        qstash.queue.upsert(name, parallelism=4)
        changed = qstash.queue.get(name)
        listed = name in [queue.name for queue in qstash.queue.list()]
        qstash.queue.delete(name)
        return [paused, changed.paused, changed.parallelism, listed]
        """,
        name=unique,
    )
    assert told == [True, False, 4, True]
    with pytest.raises(ClientError, match="404"):
        py("qstash.queue.get(name)", name=unique)


def test_a_url_group_delivers_to_each_of_its_endpoints(py: Client, box: Box, unique: str) -> None:
    other = box.beside("other")
    told = py(
        """
        qstash.url_group.delete(name)
        qstash.url_group.upsert_endpoints(name, [{"name": "one", "url": url}, {"url": other}])
        answers = qstash.message.publish_json(url_group=name, body={"n": 1})
        group = qstash.url_group.get(name)
        listed = name in [group.name for group in qstash.url_group.list()]
        qstash.url_group.remove_endpoints(name, [{"name": "one"}, {"url": other}])
        return {"answers": answers, "endpoints": group.endpoints, "listed": listed}
        """,
        name=unique,
        url=box.url,
        other=other.url,
    )
    assert [answer["url"] for answer in told["answers"]] == [box.url, other.url]
    assert [endpoint["url"] for endpoint in told["endpoints"]] == [box.url, other.url]
    assert told["listed"] is True
    assert (box.one().json, other.one().json) == ({"n": 1}, {"n": 1})
    # Without endpoints there is no group.
    with pytest.raises(ClientError, match="404"):
        py("qstash.url_group.get(name)", name=unique)


def test_a_schedule_is_made_changed_paused_and_deleted(py: Client, box: Box, unique: str) -> None:
    told = py(
        """
        made = qstash.schedule.create_json(
            destination=url, cron="0 4 * * 1", schedule_id=name, body={"n": 1}, retries=1, delay=10, label=name,
            headers={"X-Mine": "yes"}, callback=url + "-called",
        )
        first = qstash.schedule.get(made)
        qstash.schedule.pause(name)
        paused = qstash.schedule.get(name).paused
        qstash.schedule.resume(name)
        resumed = qstash.schedule.get(name).paused
        qstash.schedule.create(destination=url, cron="*/5 * * * *", schedule_id=name)
        second = qstash.schedule.get(name)
        listed = name in [schedule.schedule_id for schedule in qstash.schedule.list()]
        qstash.schedule.delete(name)
        return {"made": made, "first": first, "paused": paused, "resumed": resumed, "second": second, "listed": listed}
        """,
        name=unique,
        url=box.url,
    )
    assert told["made"] == unique
    first = told["first"]
    expected = {"cron": "0 4 * * 1", "destination": box.url, "body": '{"n": 1}', "retries": 1, "delay": 10}
    assert {name: first[name] for name in expected} == expected
    assert (first["headers"]["X-Mine"], first["callback"], first["label"]) == (["yes"], f"{box.url}-called", unique)
    assert (told["paused"], told["resumed"], told["listed"]) == (True, False, True)
    assert (told["second"]["cron"], told["second"]["body"]) == ("*/5 * * * *", None)
    with pytest.raises(ClientError, match="404"):
        py("qstash.schedule.get(name)", name=unique)


def test_a_flow_control_key_is_pinned_paused_and_reset(py: Client, box: Box, unique: str) -> None:
    told = py(
        """
        qstash.flow_control.pause(key)
        qstash.message.publish_json(
            url=url, body=1, flow_control={"key": key, "parallelism": 2, "rate": 10, "period": "1m"}
        )
        paused = qstash.flow_control.get(key)
        qstash.flow_control.pin(key, {"parallelism": 5, "rate": 20, "period": 30})
        pinned = qstash.flow_control.get(key)
        qstash.flow_control.unpin(key, {"parallelism": True, "rate": True})
        unpinned = qstash.flow_control.get(key)
        qstash.flow_control.reset_rate(key)
        qstash.flow_control.resume(key)
        resumed = qstash.flow_control.get(key)
        return [paused, pinned, unpinned, resumed, qstash.flow_control.get_global_parallelism()]
        """,
        key=unique,
        url=box.url,
    )
    box.one()
    paused, pinned, unpinned, resumed, everything = told
    assert (paused["is_paused"], paused["wait_list_size"], paused["parallelism_max"]) == (True, 1, 2)
    assert (paused["rate_max"], paused["rate_period"]) == (10, 60)
    assert (pinned["parallelism_max"], pinned["rate_max"], pinned["rate_period"]) == (5, 20, 30)
    assert (pinned["is_pinned_parallelism"], pinned["is_pinned_rate"]) == (True, True)
    assert (unpinned["is_pinned_parallelism"], unpinned["is_pinned_rate"]) == (False, False)
    assert resumed["is_paused"] is False
    assert set(everything) == {"parallelism_max", "parallelism_count"}


def test_keys_rotate_and_both_receivers_go_on(
    start_engine: Callable[[], Engine],
    start_python: Callable[..., Client],
    start_node: Callable[..., Client],
    box: Box,
) -> None:
    """On a server of its own: the endpoints of the other tests keep the keys that they were started with."""
    with start_engine() as engine:
        before = engine.environment
        with start_python("client.py", engine, Client) as py, start_node("client.mjs", engine, Client) as js:
            assert py("return qstash.signing_key.get()") == {
                "current": before["QSTASH_CURRENT_SIGNING_KEY"],
                "next": before["QSTASH_NEXT_SIGNING_KEY"],
            }
            rotated = py("return qstash.signing_key.rotate()")
            assert rotated["current"] == before["QSTASH_NEXT_SIGNING_KEY"]
            assert rotated["next"] not in before.values()
            py("qstash.message.publish_json(url=url, body=1)", url=box.url)
            got = box.one()
            verify(py, got)
            assert js("return await receiver.verify(got)", got={"signature": got.signature, "body": got.text})
            # After the second rotation nothing is left of the keys that the receivers know.
            js("await qstash.http.request({ path: ['v2', 'keys', 'rotate'], method: 'POST' })")
            js("await qstash.publishJSON({ url, body: 2 })", url=box.url)
            with pytest.raises(ClientError, match="SignatureError"):
                verify(py, box.wait(2)[-1])


def test_a_wrong_token_is_refused(py: Client, engine: Engine) -> None:
    with pytest.raises(ClientError, match="401"):
        py("QStash('wrong', base_url=url).queue.list()", url=engine.environment["QSTASH_URL"])
