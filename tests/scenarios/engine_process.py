"""An engine in a process of its own: `python -m tests.scenarios.engine_process`, ended by the end of its input.

It serves the engine's API over HTTP, as any installation does, on a database of its own. Its clock stands still and
its worker makes deliveries when it is told to: commands come as lines of JSON, each answered by one.

    {"do": "reset", "now": 1760000000.0, "site": "http://127.0.0.1:4711"}     {"ok": true}
    {"do": "clock", "now": 1760000060.0}                                      {"ok": true}
    {"do": "run", "skip_delays": true}                                        {"made": 3, "now": 1760000072.2}
    {"do": "left"}                                                            {"left": 0}
    {"do": "plans", "run_id": "wfr_1"}                                        {"plans": 2}

Deliveries to `site` go over the network. All other calls go there too, with the URL that they are meant for in a
header: the test plays the rest of the world.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import django


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.scenarios.engine_settings"
    django.setup()
    from django.db import connection

    from tests.scenarios.http_server import ThreadedServer, django_application

    name = str(connection.settings_dict["NAME"])
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        with ThreadedServer(django_application()) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            EngineProcess().serve(server.origin)
            server.shutdown()
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)


class EngineProcess:
    def __init__(self) -> None:
        from django_workflow.testing import WorkflowClock
        from django_workflow.testing.calls import current_network

        self.clock = WorkflowClock()
        self.world = World()
        current_network.append(self.world)

    def serve(self, origin: str) -> None:
        from django_workflow.engine.clock import use_clock
        from django_workflow.engine.signing_keys import engine_token, signing_pair

        keys = signing_pair()
        self._say(url=f"{origin}/workflows/qstash", token=engine_token(), current=keys.current, next=keys.next)
        with use_clock(self.clock):
            for line in sys.stdin:
                command = json.loads(line)
                try:
                    self._say(**getattr(self, f"do_{command.pop('do')}")(**command))
                except Exception:
                    self._say(error=traceback.format_exc())

    def _say(self, **answer: Any) -> None:
        print(json.dumps(answer), flush=True)

    def do_reset(self, now: float, site: str) -> dict[str, Any]:
        """Forget everything."""
        from django.apps import apps
        from django.db import transaction

        from django_workflow.engine.shared import shared_cache

        with transaction.atomic():
            for model in apps.get_app_config("django_workflow").get_models():
                queryset = model._default_manager.all()
                queryset._raw_delete(queryset.db)
        shared_cache.cache_clear()
        self.world.site = site
        self.clock._now = datetime.fromtimestamp(now, UTC)
        return {"ok": True}

    def do_clock(self, now: float) -> dict[str, Any]:
        self.clock.move_to(datetime.fromtimestamp(now, UTC))
        return {"ok": True}

    def do_run(self, skip_delays: bool) -> dict[str, Any]:
        from django_workflow.testing import run_workflows

        made = run_workflows(skip_delays=skip_delays, trusted=False)
        return {"made": made, "now": self.clock.now().timestamp()}

    def do_plans(self, run_id: str) -> dict[str, Any]:
        from django_workflow.models import JournalEntry

        return {"plans": JournalEntry.objects.filter(run__run_id=run_id, step_id=None, call_type="step").count()}

    def do_left(self) -> dict[str, Any]:
        from django_workflow.models import Delivery

        return {"left": Delivery.objects.count()}


class World:
    """The network of the engine's worker. Nothing leaves this machine."""

    def __init__(self) -> None:
        from django_workflow.engine.network import Network

        self.site = ""
        self._network = Network()

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float, *, guarded: bool
    ) -> Any:
        from django_workflow.engine.network import HttpAnswer
        from tests.scenarios.http_server import OUTSIDE

        if url.startswith(self.site + "/"):
            return self._network.send(method, url, headers, body, timeout, guarded=guarded)
        answer = self._network.send(method, self.site, {**headers, OUTSIDE: url}, body, timeout, guarded=False)
        if (error := answer.headers.get(OUTSIDE)) is not None:
            return HttpAnswer(0, body=answer.body, error=error[0])
        return answer


if __name__ == "__main__":
    main()
