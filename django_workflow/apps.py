"""The composition root: finds the workflows of the project and wires engine, client and endpoint together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django_workflow.client.observer import Delivered, Observer
    from django_workflow.client.transports import Transport
    from django_workflow.conf import Settings
    from django_workflow.engine.scheduler import Declared
    from django_workflow.mirror.surroundings import Surroundings


class DjangoWorkflowConfig(AppConfig):
    name = "django_workflow"
    verbose_name = _("Workflows")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Nothing here starts a thread or touches the database: it also runs in `migrate` and in reloaders."""
        from django_workflow import checks  # noqa: F401 - registers them
        from django_workflow.client.observer import use_observers
        from django_workflow.client.transports import use_transport
        from django_workflow.control import bulk
        from django_workflow.engine import chores, scheduler, signing_keys
        from django_workflow.mirror.surroundings import use_surroundings
        from django_workflow.realtime import channel, relay
        from django_workflow.serve import keys, submit

        use_transport(make_transport)
        keys.use_key_provider(signing_keys.verification_keys)
        submit.use_emitter(emit)
        use_observers(make_observer)
        use_surroundings(mirror_surroundings())
        scheduler.use_declarations(declared_schedules)
        chores.use_chore(bulk.advance_due)
        relay.connect()
        channel.use_run_emitter(emit_from_outside)
        autodiscover_modules("workflows")


def make_transport() -> Transport:
    """The transport of the engine that the settings name. Raises Misconfigured when they lack what it needs."""
    from django_workflow.conf import get_settings
    from django_workflow.engine.transport import EngineTransport
    from django_workflow.mirror.transport import HostedTransport

    settings = get_settings()
    return HostedTransport(make_network(settings)) if settings.is_hosted else EngineTransport()


def make_network(settings: Settings) -> Transport:
    """The way to the hosted engine: to that of its region, or to one for each."""
    from django_workflow.client.transports import HttpTransport, RegionalTransport
    from django_workflow.conf import REGIONS
    from django_workflow.errors import Misconfigured

    default = settings.credentials()
    missing = [
        name
        for name, value in (("token (or QSTASH_TOKEN)", default.token), ("base_url", settings.base_url))
        if not value
    ]
    if missing:
        raise Misconfigured(
            f"The engine is hosted at {default.url}, but DJANGO_WORKFLOW does not say {' and '.join(missing)}. "
            "`manage.py check` tells all that is missing."
        )
    if default.region is None:
        return HttpTransport(default.url, default.token or "")
    found = {region: settings.credentials(region) for region in REGIONS}
    transports = {region: HttpTransport(own.url, own.token or "") for region, own in found.items()}
    return RegionalTransport(transports, default.region)


def make_observer(delivered: Delivered) -> Observer | None:
    """Who keeps the rows of a delivery's run: the mirror, when the engine is hosted."""
    from django_workflow.conf import get_settings
    from django_workflow.mirror.recorder import Recorder

    return Recorder(delivered) if get_settings().is_hosted else None


def emit(run_id: str, event: str, data: Any) -> None:
    """Keep an event of a run whose delivery came over the network."""
    from django_workflow.conf import get_settings
    from django_workflow.engine import transport
    from django_workflow.mirror import recorder

    (recorder.emit if get_settings().is_hosted else transport.emit)(run_id, event, data)


def emit_from_outside(run_id: str, event: str, data: Any) -> None:
    """Keep an event that other code than the run's own tells its watchers."""
    from django_workflow.conf import get_settings
    from django_workflow.engine import transport
    from django_workflow.mirror import recorder

    (recorder if get_settings().is_hosted else transport).emit_from_outside(run_id, event, data)


def mirror_surroundings() -> Surroundings:
    """What the mirror shares with the embedded engine, which it does not know."""
    from django_workflow.conf import get_settings
    from django_workflow.control import bulk
    from django_workflow.engine.backoff import retry_delay
    from django_workflow.engine.clock import current_clock
    from django_workflow.engine.gate import engine_atomic
    from django_workflow.engine.pruner import Pruner
    from django_workflow.mirror.surroundings import Surroundings

    pruner = Pruner()
    return Surroundings(
        now=lambda: current_clock().now(),
        atomic=engine_atomic,
        retry_delay=retry_delay,
        prune=lambda now: pruner.prune_batch(now, get_settings().retention),
        chore=bulk.advance_due,
    )


def declared_schedules() -> Iterable[Declared]:
    """The schedules that workflows declare in code, as the engine takes them."""
    from django_workflow.authoring.registry import registry
    from django_workflow.engine.scheduler import Declared

    for workflow in registry.all():
        if workflow.schedule:
            yield Declared(workflow.name, workflow.schedule, workflow.timezone, workflow.scheduled_message)
