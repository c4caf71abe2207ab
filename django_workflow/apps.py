"""The composition root: finds the workflows of the project and wires engine, client and endpoint together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django_workflow.client.transports import Transport
    from django_workflow.engine.scheduler import Declared


class DjangoWorkflowConfig(AppConfig):
    name = "django_workflow"
    verbose_name = _("Workflows")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Nothing here starts a thread or touches the database: it also runs in `migrate` and in reloaders."""
        from django_workflow import checks  # noqa: F401 - registers them
        from django_workflow.client.transports import use_transport
        from django_workflow.engine import scheduler, signing_keys, transport
        from django_workflow.realtime import channel, relay
        from django_workflow.serve import keys, submit

        use_transport(make_transport)
        keys.use_key_provider(signing_keys.verification_keys)
        submit.use_emitter(transport.emit)
        scheduler.use_declarations(declared_schedules)
        relay.connect()
        channel.use_run_emitter(transport.emit_from_outside)
        autodiscover_modules("workflows")


def make_transport() -> Transport:
    """The transport of the engine that the settings name."""
    from django_workflow.client.transports import HttpTransport
    from django_workflow.conf import get_settings
    from django_workflow.engine.transport import EngineTransport

    settings = get_settings()
    if settings.engine == "qstash":
        return HttpTransport(settings.qstash_url, settings.token or "")
    return EngineTransport()


def declared_schedules() -> Iterable[Declared]:
    """The schedules that workflows declare in code, as the engine takes them."""
    from django_workflow.authoring.registry import registry
    from django_workflow.engine.scheduler import Declared

    for workflow in registry.all():
        if workflow.schedule:
            yield Declared(workflow.name, workflow.schedule, workflow.timezone, workflow.scheduled_message)
