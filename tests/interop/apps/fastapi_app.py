"""A FastAPI application with workflows of every kind of step that the Python SDK has. Deliveries are verified with the
keys of the environment."""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from typing import Any

import uvicorn
from fastapi import FastAPI
from upstash_workflow import AsyncWorkflowContext
from upstash_workflow.fastapi import Serve

app = FastAPI()
serve = Serve(app)

# What happened outside of results, by run.
records: dict[str, list[Any]] = defaultdict(list)

Context = AsyncWorkflowContext[Any]


@app.get("/records/{run_id}")
def read_records(run_id: str) -> list[Any]:
    return records[run_id]


@serve.post("/results")
async def results(context: Context) -> None:
    found = {
        "object": await context.run("object", lambda: {"n": 1, "text": "grüße ☃"}),
        "text": await context.run("text", lambda: "plain"),
        "nothing": await context.run("nothing", lambda: None),
        "number": await context.run("number", lambda: 4.5),
    }

    async def last() -> Any:
        return {**found, "payload": context.request_payload, "mine": context.headers.get("x-mine")}

    await context.run("last", last)


@serve.post("/large")
async def large(context: Context) -> None:
    text = await context.run("large", lambda: "x" * 4_194_304)
    await context.run("measure", lambda: len(text))


@serve.post("/sleeps")
async def sleeps(context: Context) -> None:
    began = await context.run("begin", time.time)
    await context.sleep("a number", 1)
    await context.sleep("a duration", "1s")
    slept = await context.run("after sleeps", time.time)
    await context.sleep_until("an instant", slept + 1)
    woke = await context.run("end", time.time)
    await context.run("told", lambda: {"slept": slept - began, "until": woke - slept})


@serve.post("/calls")
async def calls(context: Context) -> None:
    # While the SDK handles the answer of a call, the payload is not there.
    settings = await context.run("read payload", lambda: context.request_payload)
    answers = {}
    for name, setting in settings.items():
        answer = await context.call(name, **setting)
        answers[name] = {"status": answer.status, "body": answer.body}
    await context.run("told", lambda: answers)


async def take_note(context: Context, status: int, response: str, headers: dict[str, str]) -> None:
    records[context.workflow_run_id].append(
        {"status": status, "response": response, "payload": context.request_payload, "url": context.url}
    )


attempts: dict[str, int] = defaultdict(int)


@serve.post("/failures", retries=1, failure_function=take_note)
async def failures(context: Context) -> None:
    def may_fail() -> int:
        key = context.request_payload["key"]
        attempts[key] += 1
        if attempts[key] <= context.request_payload["times"]:
            raise ValueError(f"failed {attempts[key]}")
        return attempts[key]

    await context.run("before", lambda: 1)
    await context.run("may fail", may_fail)


@serve.post("/waits")
async def waits(context: Context) -> None:
    await context.run("before", lambda: 1)
    await context.sleep("for ever", "1d")
    await context.run("never", lambda: 1)


def end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        print(json.dumps({"port": sockets[0].getsockname()[1]}), flush=True)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Server(uvicorn.Config(app, log_config=None)).run(sockets=[listener])
