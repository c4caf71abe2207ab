"""Runs Python with the official client: one line of JSON in, {code, arguments}, and one out, {value} or {error}.

The code sees `qstash` (the client), `receiver`, `QStash`, and its arguments by their names. It runs in the environment
of the official clients, which has nothing of this project.
"""

import dataclasses
import json
import os
import sys
import textwrap
from enum import Enum
from typing import Any

from qstash import QStash, Receiver

CLIENTS = {
    "qstash": QStash(os.environ["QSTASH_TOKEN"], base_url=os.environ["QSTASH_URL"]),
    "receiver": Receiver(os.environ["QSTASH_CURRENT_SIGNING_KEY"], os.environ["QSTASH_NEXT_SIGNING_KEY"]),
    "QStash": QStash,
}


def run(code: str, arguments: dict[str, Any]) -> dict[str, Any]:
    names: dict[str, Any] = {**CLIENTS, **arguments}
    try:
        exec("def function():\n" + textwrap.indent(code, "    "), names)
        return {"value": names["function"]()}
    except Exception as error:  # whatever it is, the test is told
        return {"error": {"name": type(error).__name__, "message": str(error)}}


def plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value)} has no JSON form.")


# The official client prints for itself, too: only what this program says may come by this line.
answers, sys.stdout = sys.stdout, sys.stderr
print(json.dumps({"ready": True}), file=answers, flush=True)
for line in sys.stdin:
    call = json.loads(line)
    print(json.dumps(run(call["code"], call["arguments"]), default=plain), file=answers, flush=True)
