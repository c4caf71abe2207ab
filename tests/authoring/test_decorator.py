from __future__ import annotations

import datetime as dt
import functools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User

from django_workflow import AsyncWorkflowContext, FlowControl, Middleware, Workflow, WorkflowContext, workflow
from django_workflow.authoring.registry import registry
from django_workflow.errors import Misconfigured, PayloadInvalid
from django_workflow.protocol.requests import Batch
from django_workflow.replay.step_call import CurrentStep, current_step
from django_workflow.replay.values import ANY
from tests.client.fakes import RecordingTransport
from tests.replay.driver import Engine

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers


@workflow
def early(ctx: WorkflowContext[DefinedLater]) -> DefinedLater:
    """The docstring."""
    return ctx.run("a", lambda: ctx.request_payload)


@dataclass
class DefinedLater:
    order: int
    note: str = ""


@workflow(name="other-name", retries=1)
async def awaited(ctx: AsyncWorkflowContext[DefinedLater]) -> int:
    return await ctx.run("a", lambda: 1)


def test_a_workflow_keeps_what_its_function_says_of_itself() -> None:
    assert early.__doc__ == "The docstring."
    assert early.__name__ == "early"
    assert early.__module__ == __name__
    assert repr(early) == f"<Workflow 'early' ({__name__})>"
    assert (early.name, early.is_async, early.aliases, early.on_failure, early.middlewares) == (
        "early",
        False,
        (),
        None,
        (),
    )
    assert (early.schedule, early.timezone) == (None, "UTC")


def test_a_workflow_with_options() -> None:
    assert (awaited.name, awaited.is_async, awaited.options.retries) == ("other-name", True, 1)


def test_the_types_of_a_workflow_may_be_defined_further_down() -> None:
    assert early.payload_type is DefinedLater
    assert early.return_type is DefinedLater
    assert awaited.payload_type is DefinedLater
    assert awaited.return_type is int


def no_annotation(ctx):  # type: ignore[no-untyped-def]
    pass


@functools.wraps(lambda: None)
def no_parameter(*args: Any) -> None:
    pass


def any_payload(ctx: WorkflowContext[Any]) -> None:
    pass


def bare_context(ctx: WorkflowContext) -> None:  # type: ignore[type-arg]
    pass


def something_else(ctx: dict[str, int]) -> None:
    pass


@functools.wraps(early.function)
def wrapped(*args: Any) -> Any:
    return early.function(*args)


@pytest.mark.parametrize(
    ("function", "type_"),
    [
        (no_annotation, ANY),
        (no_parameter, ANY),
        (any_payload, ANY),
        (bare_context, ANY),
        (something_else, ANY),
        (lambda ctx: 1, ANY),
        (wrapped, DefinedLater),
    ],
)
def test_the_payload_type_of_a_function(function: Any, type_: Any) -> None:
    assert Workflow(function, name="wf").payload_type is type_


def test_a_payload_type_that_is_nowhere_says_what_to_do(transport: RecordingTransport) -> None:
    def wf(ctx: WorkflowContext[OnlyForTypeCheckers]) -> None: ...

    with pytest.raises(
        Misconfigured, match=r"'OnlyForTypeCheckers' is not defined.*pass it as @workflow\(payload=...\)"
    ):
        Workflow(wf, name="wf").trigger({})
    assert Workflow(wf, name="wf", payload=int).payload_type is int


def test_the_context_may_be_imported_for_type_checkers_only() -> None:
    names = {"DefinedLater": DefinedLater}
    exec("def wf(ctx: 'WorkflowContext[DefinedLater]'): ...", names)
    assert Workflow(names["wf"], name="wf").payload_type is DefinedLater


@pytest.mark.parametrize("name", ["a/b", "a b", "", "a?b", "-", "x" * 256, "tab\t"])
def test_a_name_that_cannot_stand_in_a_url_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match="Invalid workflow name found"):
        Workflow(no_annotation, name="ok", aliases=[name])


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(
        Misconfigured, match=r"'retires' is no option of a workflow; did you mean 'retries'\? Known are"
    ):
        workflow(retires=3)(no_annotation)


def test_calling_a_workflow_does_not_start_it() -> None:
    for arguments in ([{"order": 1}], []):
        with pytest.raises(TypeError, match=r"early\(...\) does not start a run: write early.trigger\(payload\)"):
            early(*arguments)


def a_generator(ctx: Any) -> Iterator[int]:
    yield ctx.run("a", lambda: 1)


async def an_async_generator(ctx: Any) -> AsyncIterator[int]:
    yield await ctx.run("a", lambda: 1)


class Shop:
    def method(self, ctx: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (a_generator, "Workflow 'a_generator' is a generator"),
        (an_async_generator, "Workflow 'an_async_generator' is a generator"),
        (Shop.method, "Workflow 'method' takes (self, ctx: 'Any') -> 'None', but is called with its context alone"),
        (lambda: None, "takes (), but is called with its context alone"),
        (lambda ctx, order_id: None, "takes (ctx, order_id), but is called"),
        (lambda *, ctx: None, "takes (*, ctx), but is called"),
        ("fulfil", "To name it, write @workflow(name='fulfil')"),
        (None, "made of a function, not of None"),
        (functools.partial(lambda shop, ctx: None, 1), "has no name of its own"),
    ],
)
def test_what_cannot_be_called_as_a_workflow_is_refused_where_it_is_written(function: Any, text: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        Workflow(function)
    assert text in str(raised.value)


def test_a_model_is_no_payload() -> None:
    def greet(ctx: WorkflowContext[User]) -> None: ...

    for declared in (Workflow(greet), Workflow(lambda ctx: None, name="greet", payload=User)):
        with pytest.raises(Misconfigured, match="'greet' is declared as User, which is a model"):
            declared.trigger(1)


def test_a_decorator_may_give_the_function_more_than_its_context() -> None:
    def with_shop(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args, "shop")

        return wrapper

    @with_shop
    def fulfil(ctx: Any, shop: str) -> str:
        return ctx.run("a", lambda: shop)

    assert Engine(Workflow(fulfil)).run() == "shop"


def test_a_workflow_may_call_another_one_with_its_own_context() -> None:
    inner = Workflow(lambda ctx: ctx.run("inner", lambda: 2), name="inner")
    assert Engine(lambda ctx: ctx.run("outer", lambda: 1) + inner(ctx)).run() == 3


# Triggering


def test_a_trigger_sends_payload_and_options(transport: RecordingTransport) -> None:
    handle = early.using(
        delay="1h",
        label=["vip", "eu"],
        workflow_run_id="order-7",
        retries=9,
        retry_delay=dt.timedelta(seconds=2),
        flow_control=FlowControl("shop", parallelism=2),
        headers={"X-Tenant": "a"},
        redact="body",
        not_before=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        failure_url="https://ops.example/",
    ).trigger(DefinedLater(7))
    assert handle.id == "wfr_order-7"
    (message,) = transport.messages
    assert message.body == b'{"order":7,"note":""}'
    assert message.destination == "https://workflow.internal/workflows/serve/early/"
    assert (message.delay, message.labels, message.retries, message.retry_delay) == (3600, ("vip", "eu"), 9, "2000")
    assert message.flow_control == FlowControl("shop", parallelism=2)
    assert message.headers["X-Tenant"] == "a"
    assert (message.redact, message.not_before) == (("body",), 1767225600)
    assert message.failure_callback is not None
    assert message.failure_callback.url == "https://ops.example/"
    assert early.options.retries is None, "the workflow itself is unchanged"


def test_plain_data_that_fits_the_type_will_do(transport: RecordingTransport) -> None:
    early.trigger({"order": 7})
    assert transport.messages[0].body == b'{"order":7}'


@pytest.mark.parametrize(
    ("payload", "field"), [({"order": "x"}, "$.order"), ({}, "$.order"), (None, "$.order"), ([1], "$"), (object(), "$")]
)
def test_a_bad_payload_is_refused_before_anything_is_sent(
    transport: RecordingTransport, payload: Any, field: str
) -> None:
    with pytest.raises(PayloadInvalid) as raised:
        early.trigger(payload)
    assert raised.value.field == field
    assert raised.value.workflow == "early"
    assert transport.sent == []


def test_a_payload_above_the_limit_is_refused(transport: RecordingTransport, settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {"max_payload_bytes": 50}
    with pytest.raises(PayloadInvalid, match="bytes of JSON, but the limit is 50"):
        early.trigger(DefinedLater(1, "x" * 50))


async def test_the_async_twins(transport: RecordingTransport) -> None:
    handle = await early.atrigger(DefinedLater(1))
    assert handle.id.startswith("wfr_")
    handles = await early.atrigger_many([DefinedLater(2), {"order": 3}])
    assert len(handles) == 2
    assert [message.body for message in transport.messages] == [
        b'{"order":1,"note":""}',
        b'{"order":2,"note":""}',
        b'{"order":3}',
    ]


def test_many_runs_are_started_with_one_request(transport: RecordingTransport) -> None:
    handles = early.using(label="bulk").trigger_many({"order": n} for n in range(3))
    assert len({handle.id for handle in handles}) == 3
    (request,) = transport.sent
    assert isinstance(request, Batch)
    assert {message.labels for message in request.messages} == {("bulk",)}


def test_many_runs_are_all_started_or_none(transport: RecordingTransport) -> None:
    with pytest.raises(PayloadInvalid):
        early.trigger_many([{"order": 1}, {"order": "x"}])
    assert transport.sent == []


def test_many_runs_cannot_share_an_id(transport: RecordingTransport) -> None:
    with pytest.raises(Misconfigured, match="cannot share the id 'wfr_one'"):
        early.using(workflow_run_id="one").trigger_many([{"order": 1}, {"order": 2}])
    assert len(early.using(workflow_run_id="one").trigger_many([{"order": 1}])) == 1


def test_the_handle_gives_the_result_as_its_type(transport: RecordingTransport) -> None:
    assert early.trigger({"order": 7})._decode(b'{"order":7}') == DefinedLater(7)


@pytest.mark.parametrize(
    "options", [{"schedule": "* * * * *"}, {"on_failure": print}, {"middlewares": []}, {"steps_per_call": 2}]
)
def test_what_belongs_to_the_workflow_cannot_be_said_of_one_run(options: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="cannot differ from run to run"):
        early.using(**options)


def test_using_adds_to_what_was_said_before() -> None:
    bound = early.using(retries=1).using(delay=5)
    assert (bound.options.retries, bound.options.delay) == (1, 5)
    assert bound.payload_type is DefinedLater


def test_a_trigger_inside_a_step_has_the_same_id_on_every_attempt(transport: RecordingTransport) -> None:
    def attempt() -> list[str]:
        token = current_step.set(CurrentStep("charge", 3, "wfr_first"))
        try:
            return [early.trigger({"order": n}).id for n in range(2)]
        finally:
            current_step.reset(token)

    first, again = attempt(), attempt()
    assert first == again
    assert len(set(first)) == 2
    assert early.trigger({"order": 1}).id not in first


def test_the_message_of_a_schedule_starts_a_run_without_a_payload() -> None:
    @workflow(schedule="0 3 * * *", timezone="Europe/Berlin", label="night")
    def nightly(ctx: WorkflowContext[None]) -> None: ...

    message = nightly.scheduled_message("wfr_night-1")
    assert (nightly.schedule, nightly.timezone) == ("0 3 * * *", "Europe/Berlin")
    assert message.workflow is not None
    assert (message.workflow.run_id, message.workflow.init, message.body) == ("wfr_night-1", True, b"")
    assert message.labels == ("night",)


# The registry


def test_the_decorator_registers() -> None:
    @workflow(aliases=["old_name"])
    def renamed(ctx: WorkflowContext[None]) -> None: ...

    assert registry.get("renamed") is renamed
    assert registry.get("old_name") is renamed
    assert "renamed" in registry.names()
    assert "old_name" not in registry.names()
    assert renamed in registry.all()


def test_middlewares_of_a_sync_workflow_are_sync() -> None:
    class Async(Middleware):
        async def before_execution(self, ctx: Any, step_name: str) -> None: ...

    with pytest.raises(Misconfigured, match=r"Async\.before_execution is async, but workflow 'no_annotation' is not"):
        workflow(middlewares=[Async])(no_annotation)
