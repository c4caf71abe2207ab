"""Messages outside workflows, with the client and the receiver of `@upstash/qstash`."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.interop.destination import Answer, Box, Received, decoded
from tests.interop.engine import Engine
from tests.interop.processes import Client, ClientError


def verified(js: Client, request: Received, url: str | None = None) -> bool:
    """What the official receiver says of a request."""
    options = {"signature": request.signature, "body": request.text, **({"url": url} if url else {})}
    return bool(js("return await receiver.verify(options)", options=options))


def wait_for_state(js: Client, message_id: str, state: str) -> list[dict[str, Any]]:
    """The message's events, oldest first, as soon as one has the state."""
    events: list[dict[str, Any]] = js(
        """
        for (let asked = 0; asked < 500; asked++) {
          const { events } = await qstash.logs({ filter: { messageId } });
          if (events.some((event) => event.state === state)) return events.reverse();
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        throw new Error(`${messageId} did not become ${state}`);
        """,
        messageId=message_id,
        state=state,
    )
    return events


# Publishing


def test_a_message_is_delivered_as_it_was_published(js: Client, box: Box) -> None:
    url = f"{box.url}?a=1&b=x%2Fy&c=//"
    published = js(
        """
        return await qstash.publishJSON({
          url, body: { word: "grüße ☃", n: 1 }, method: "PUT", headers: { "X-Mine": "yes" }, retries: 2,
        })
        """,
        url=url,
    )
    got = box.one()
    assert (got.method, got.path) == ("PUT", f"{box.path}?a=1&b=x%2Fy&c=//")
    assert got.text == '{"word":"grüße ☃","n":1}'
    assert {
        name: got.headers[name]
        for name in ("content-type", "x-mine", "user-agent", "upstash-message-id", "upstash-retried")
    } == {
        "content-type": "application/json",
        "x-mine": "yes",
        "user-agent": "Upstash-QStash",
        "upstash-message-id": published["messageId"],
        "upstash-retried": "0",
    }
    assert verified(js, got)
    assert verified(js, got, url)
    with pytest.raises(ClientError):
        verified(js, Received(got.method, got.path, got.headers, b"{}"))
    with pytest.raises(ClientError):
        verified(js, got, box.url)


def test_a_batch_holds_messages_of_every_kind(js: Client, box: Box, unique: str) -> None:
    grouped, queued = box.beside("group"), box.beside("queue")
    answers = js(
        """
        await qstash.urlGroups.addEndpoints({ name, endpoints: [{ url: grouped, name: "only" }] });
        return await qstash.batchJSON([
          { url, body: { n: 1 } },
          { urlGroup: name, body: { n: 2 } },
          { url: queued, queueName: name, body: { n: 3 } },
        ]);
        """,
        name=unique,
        url=box.url,
        grouped=grouped.url,
        queued=queued.url,
    )
    alone, (of_group,), of_queue = answers
    assert [box.one().json, grouped.one().json, queued.one().json] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert of_group["url"] == grouped.url
    assert grouped.one().headers["upstash-topic-name"] == unique
    assert len({alone["messageId"], of_group["messageId"], of_queue["messageId"]}) == 3


def test_a_delayed_message_is_shown_and_cancelled(js: Client, box: Box, unique: str) -> None:
    before = time.time() * 1000
    told = js(
        """
        const { messageId } = await qstash.publishJSON({
          url, body: { n: 1 }, delay: "1h", retries: 1, retryDelay: "1000 * retried", label: ["one", label],
          callback: `${url}-called`, failureCallback: `${url}-failed`, headers: { "X-Mine": "yes" }, timeout: 30,
          flowControl: { key: label, rate: 5, parallelism: 3 },
        });
        const message = await qstash.messages.get(messageId);
        const cancelled = await qstash.messages.cancel(messageId);
        const again = await qstash.messages.cancel([messageId]);
        const gone = await qstash.messages.get(messageId).catch((error) => error.status);
        return { message, cancelled, again, gone };
        """,
        url=box.url,
        label=unique,
    )
    message = told["message"]
    expected = {
        "url": box.url,
        "method": "POST",
        "body": '{"n":1}',
        "maxRetries": 1,
        "retryDelayExpression": "1000 * retried",
        "callback": f"{box.url}-called",
        "failureCallback": f"{box.url}-failed",
        "label": "one",
        "labels": ["one", unique],
        "flowControlKey": unique,
        "rate": 5,
        "parallelism": 3,
        "period": 1,
    }
    assert {name: message.get(name) for name in expected} == expected
    assert message["header"]["X-Mine"] == ["yes"]
    assert before + 3_590_000 < message["notBefore"] < before + 3_700_000
    assert (told["cancelled"], told["again"], told["gone"]) == ({"cancelled": 1}, {"cancelled": 0}, 404)
    states = [event["state"] for event in wait_for_state(js, message["messageId"], "CANCELED")]
    assert states == ["CREATED", "CANCEL_REQUESTED", "CANCELED"]


def test_messages_are_cancelled_by_a_filter(js: Client, box: Box, unique: str) -> None:
    told = js(
        """
        for (const n of [1, 2, 3]) await qstash.publishJSON({ url, body: n, delay: 600, label });
        await qstash.publishJSON({ url, body: 4, delay: 600 });
        return [
          await qstash.messages.cancel({ filter: { label }, count: 2 }),
          await qstash.messages.cancel({ filter: { label } }),
          await qstash.messages.cancel({ filter: { url } }),
        ];
        """,
        url=box.url,
        label=unique,
    )
    assert told == [{"cancelled": 2}, {"cancelled": 1}, {"cancelled": 1}]


def test_a_message_that_comes_twice_is_delivered_once(js: Client, box: Box, unique: str) -> None:
    told = js(
        """
        const named = () => qstash.publishJSON({ url, body: 1, deduplicationId });
        const alike = () => qstash.publishJSON({ url: `${url}-alike`, body: 1, contentBasedDeduplication: true });
        return [await named(), await named(), await alike(), await alike()];
        """,
        url=box.url,
        deduplicationId=unique,
    )
    for first, second in (told[:2], told[2:]):
        assert second == {**first, "deduplicated": True}
    box.beside("alike").one()
    assert (len(box.wait()), len(box.beside("alike").received)) == (1, 1)


# Failing


def test_a_message_is_tried_again_and_then_lies_in_the_dead_letter_queue(js: Client, box: Box, unique: str) -> None:
    failed, called = box.beside("failed"), box.beside("called")
    box.answers(Answer(500, b'{"no":1}'))
    published = js(
        """
        return await qstash.publishJSON({
          url, body: { n: 1 }, retries: 1, retryDelay: "10", label,
          callback: called, failureCallback: failed, headers: { "X-Mine": "yes" },
        })
        """,
        url=box.url,
        label=unique,
        called=called.url,
        failed=failed.url,
    )
    tried = box.wait(2)
    assert [request.headers["upstash-retried"] for request in tried] == ["0", "1"]
    assert all(verified(js, request) for request in tried)

    callback = called.wait(2)[-1]
    assert verified(js, callback)
    body = callback.json
    assert {name: body[name] for name in ("status", "retried", "maxRetries", "sourceMessageId", "url", "method")} == {
        "status": 500,
        "retried": 1,
        "maxRetries": 1,
        "sourceMessageId": published["messageId"],
        "url": box.url,
        "method": "POST",
    }
    assert (decoded(body["body"]), decoded(body["sourceBody"])) == ({"no": 1}, {"n": 1})
    told = failed.one()
    assert verified(js, told)
    assert told.json["sourceMessageId"] == published["messageId"]

    states = [event["state"] for event in wait_for_state(js, published["messageId"], "FAILED")]
    assert states == ["CREATED", "ACTIVE", "ERROR", "RETRY", "ACTIVE", "FAILED"]

    letters = js("return await qstash.dlq.listMessages({ filter: { label } })", label=unique)
    (letter,) = letters["messages"]
    assert letter["dlqId"] == told.json["dlqId"]
    assert (letter["responseStatus"], letter["responseBody"], letter["body"]) == (500, '{"no":1}', '{"n":1}')

    box.answers(Answer())
    again = js("return await qstash.dlq.retry(dlqId)", dlqId=letter["dlqId"])
    (answer,) = again["responses"]
    assert answer["messageId"] != published["messageId"]
    retried = box.wait(3)[-1]
    assert (retried.headers["upstash-message-id"], retried.json) == (answer["messageId"], {"n": 1})
    assert retried.headers["x-mine"] == "yes"
    assert js("return await qstash.dlq.listMessages({ filter: { label } })", label=unique)["messages"] == []


def test_dead_letters_are_deleted(js: Client, box: Box, unique: str) -> None:
    box.answers(Answer(500))
    messages = js(
        """
        return await qstash.batchJSON([1, 2, 3].map((n) => ({ url, body: n, retries: 0, label })));
        """,
        url=box.url,
        label=unique,
    )
    for message in messages:
        wait_for_state(js, message["messageId"], "FAILED")
    told = js(
        """
        const { messages } = await qstash.dlq.listMessages({ filter: { label } });
        const [one, two] = messages.map((message) => message.dlqId);
        return [
          await qstash.dlq.delete(one),
          await qstash.dlq.delete([one, two]),
          await qstash.dlq.delete({ filter: { label } }),
          await qstash.dlq.delete({ filter: { label } }),
        ].map((answer) => answer.deleted);
        """,
        label=unique,
    )
    assert told == [1, 1, 1, 0]


def test_a_destination_says_when_to_try_again(js: Client, box: Box) -> None:
    box.answers(Answer(429, headers={"Retry-After": "1"}), Answer())
    js("await qstash.publishJSON({ url, body: 1, retries: 1, retryDelay: '3600000' })", url=box.url)
    assert len(box.wait(2)) == 2


def test_an_error_that_no_retry_cures_is_tried_once(js: Client, box: Box) -> None:
    box.answers(Answer(489, headers={"Upstash-NonRetryable-Error": "true"}))
    published = js("return await qstash.publishJSON({ url, body: 1, retries: 3, retryDelay: '10' })", url=box.url)
    wait_for_state(js, published["messageId"], "FAILED")
    assert len(box.received) == 1


# Events


def test_events_tell_the_life_of_a_message(js: Client, box: Box, unique: str) -> None:
    box.answers(Answer(200, b'{"done":true}'))
    published = js("return await qstash.publishJSON({ url, body: { n: 1 }, label })", url=box.url, label=unique)
    events = wait_for_state(js, published["messageId"], "DELIVERED")
    assert [event["state"] for event in events] == ["CREATED", "ACTIVE", "DELIVERED"]
    created, _, delivered = events
    assert (decoded(created["body"]), created["url"], created["label"]) == ({"n": 1}, box.url, unique)
    assert (delivered["responseStatus"], decoded(delivered["responseBody"])) == (200, {"done": True})
    told = js(
        """
        const states = ({ events }) => events.map((event) => event.state);
        const first = await qstash.logs({ count: 2, filter: { label } });
        const rest = await qstash.logs({ count: 2, filter: { label }, cursor: first.cursor });
        return {
          pages: [states(first), states(rest)],
          more: rest.cursor,
          delivered: states(await qstash.logs({ filter: { label, state: "DELIVERED" } })),
          same: states(await qstash.events({ filter: { label } })),
        };
        """,
        label=unique,
    )
    assert told == {
        "pages": [["DELIVERED", "ACTIVE"], ["CREATED"]],
        "delivered": ["DELIVERED"],
        "same": ["DELIVERED", "ACTIVE", "CREATED"],
    }


# Queues


def test_a_queue_delivers_in_order_while_it_is_not_paused(js: Client, box: Box, unique: str) -> None:
    box.answers(Answer(500), Answer())
    made = js(
        """
        const queue = qstash.queue({ queueName });
        await queue.upsert({ parallelism: 1, paused: true });
        for (const n of [1, 2, 3]) await queue.enqueueJSON({ url, body: { n }, retries: 1, retryDelay: "50" });
        const made = await queue.get();
        await queue.resume();
        return made;
        """,
        queueName=unique,
        url=box.url,
    )
    assert {name: made[name] for name in ("name", "parallelism", "paused", "lag")} == {
        "name": unique,
        "parallelism": 1,
        "paused": True,
        "lag": 3,
    }
    # The first one failed once, and nobody overtook it.
    assert [request.json["n"] for request in box.wait(4)] == [1, 1, 2, 3]
    told = js(
        """
        const queue = qstash.queue({ queueName });
        await queue.pause();
        const { paused } = await queue.get();
        await queue.upsert({ parallelism: 4 });
        const { parallelism } = await queue.get();
        const listed = (await qstash.queue().list()).some((queue) => queue.name === queueName);
        await queue.delete();
        const gone = await queue.get().catch((error) => error.status);
        return { paused, parallelism, listed, gone };
        """,
        queueName=unique,
    )
    assert told == {"paused": True, "parallelism": 4, "listed": True, "gone": 404}


# URL groups


def test_a_url_group_delivers_to_each_of_its_endpoints(js: Client, box: Box, unique: str) -> None:
    other = box.beside("other")
    told = js(
        """
        const endpoints = [{ name: "one", url }, { name: "two", url: other }];
        await qstash.urlGroups.addEndpoints({ name, endpoints });
        const answers = await qstash.publishJSON({ urlGroup: name, body: { n: 1 } });
        const group = await qstash.urlGroups.get(name);
        const listed = (await qstash.urlGroups.list()).map((group) => group.name);
        await qstash.urlGroups.removeEndpoints({ name, endpoints: [{ name: "two" }] });
        const left = await qstash.urlGroups.get(name);
        await qstash.urlGroups.delete(name);
        await qstash.urlGroups.delete(name);
        const gone = await qstash.publishJSON({ urlGroup: name, body: 1 }).catch((error) => error.status);
        return { answers, group, listed, left, gone };
        """,
        name=unique,
        url=box.url,
        other=other.url,
    )
    assert [answer["url"] for answer in told["answers"]] == [box.url, other.url]
    assert (box.one().json, other.one().json) == ({"n": 1}, {"n": 1})
    assert told["group"]["name"] == unique
    assert told["group"]["endpoints"] == [{"name": "one", "url": box.url}, {"name": "two", "url": other.url}]
    assert unique in told["listed"]
    assert told["left"]["endpoints"] == [{"name": "one", "url": box.url}]
    assert told["gone"] == 404


# Schedules


def test_a_schedule_is_made_changed_paused_and_deleted(js: Client, box: Box, unique: str) -> None:
    told = js(
        """
        const made = await qstash.schedules.create({
          destination: url, cron: " 0 4 * * 1 ", scheduleId, body: '{"n":1}', retries: 1, delay: "10s",
          method: "PUT", headers: { "X-Mine": "yes" }, label: scheduleId, callback: `${url}-called`,
        });
        const first = await qstash.schedules.get(scheduleId);
        await qstash.schedules.pause({ schedule: scheduleId });
        const paused = (await qstash.schedules.get(scheduleId)).isPaused;
        await qstash.schedules.resume({ schedule: scheduleId });
        const resumed = (await qstash.schedules.get(scheduleId)).isPaused;
        await qstash.schedules.create({ destination: url, cron: "CRON_TZ=Europe/Berlin 30 8 * * *", scheduleId });
        const second = await qstash.schedules.get(scheduleId);
        const listed = (await qstash.schedules.list()).filter((schedule) => schedule.scheduleId === scheduleId);
        await qstash.schedules.delete(scheduleId);
        const gone = await qstash.schedules.get(scheduleId).catch((error) => error.status);
        const bad = await qstash.schedules.create({ destination: url, cron: "soon" }).catch((error) => error.status);
        return { made, first, paused, resumed, second, listed: listed.length, gone, bad };
        """,
        url=box.url,
        scheduleId=unique,
    )
    assert told["made"] == {"scheduleId": unique}
    expected = {
        "scheduleId": unique,
        "cron": "0 4 * * 1",
        "destination": box.url,
        "method": "PUT",
        "body": '{"n":1}',
        "retries": 1,
        "delay": 10,
        "label": unique,
        "callback": f"{box.url}-called",
        "isPaused": False,
    }
    assert {name: told["first"].get(name) for name in expected} == expected
    assert told["first"]["header"]["X-Mine"] == ["yes"]
    assert told["first"]["nextScheduleTime"] > time.time() * 1000
    assert (told["paused"], told["resumed"]) == (True, False)
    # Made again, it is another one: what is not said is not kept.
    assert told["second"]["cron"] == "CRON_TZ=Europe/Berlin 30 8 * * *"
    assert [told["second"].get(name) for name in ("body", "delay", "label")] == [None, None, None]
    assert (told["listed"], told["gone"], told["bad"]) == (1, 404, 400)


# Flow control


def test_a_flow_control_key_is_pinned_paused_and_reset(js: Client, box: Box, unique: str) -> None:
    told = js(
        """
        const flowControl = { key, parallelism: 2, rate: 10, period: "1m" };
        const held = { url, body: 1, flowControl };
        await qstash.flowControl.pause(key);
        await qstash.publishJSON(held);
        const paused = await qstash.flowControl.get(key);
        await qstash.flowControl.pin(key, { parallelism: 5, rate: 20, period: 30 });
        const pinned = await qstash.flowControl.get(key);
        await qstash.flowControl.unpin(key, { parallelism: true, rate: true });
        const unpinned = await qstash.flowControl.get(key);
        await qstash.flowControl.resume(key);
        return { paused, pinned, unpinned, all: await qstash.flowControl.getGlobalParallelism() };
        """,
        url=box.url,
        key=unique,
    )
    box.one()

    def shown(name: str, *fields: str) -> list[Any]:
        return [told[name][field] for field in fields]

    limits = ("parallelismMax", "rateMax", "ratePeriod", "isPinnedParallelism", "isPinnedRate", "isPaused")
    assert shown("paused", *limits, "waitListSize") == [2, 10, 60, False, False, True, 1]
    assert shown("pinned", *limits) == [5, 20, 30, True, True, True]
    assert shown("unpinned", *limits)[3:] == [False, False, True]
    assert set(told["all"]) == {"parallelismMax", "parallelismCount"}
    counted = js(
        """
        const before = await qstash.flowControl.get(key);
        await qstash.flowControl.resetRate(key);
        return [before.rateCount, (await qstash.flowControl.get(key)).rateCount];
        """,
        key=unique,
    )
    assert counted == [1, 0]


# Keys


def test_the_keys_are_those_of_the_environment(js: Client, engine: Engine) -> None:
    keys = js("return await qstash.http.request({ path: ['v2', 'keys'], method: 'GET' })")
    assert keys == {
        "current": engine.environment["QSTASH_CURRENT_SIGNING_KEY"],
        "next": engine.environment["QSTASH_NEXT_SIGNING_KEY"],
    }
