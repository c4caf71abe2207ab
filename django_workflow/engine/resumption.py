"""One run gone on with: the journal of the failed run is read, what is finished is copied, what is open is asked for.

* No parallel group is open: the call after the last finished step is made again.
* A group is open: each branch without a result is run again from its plan. Its sleeps end when they would have ended.
* The answer of a call was there, but its endpoint could not take it: the answer is brought again, the call not made.
* A run that an open step invoked has ended meanwhile: that is the step's result. Or it goes on: its end will be.

Called by `resuming`, with the failed run and those that it invoked locked.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from django_workflow.conf import get_settings
from django_workflow.engine.calls import called_step
from django_workflow.engine.failed_runs import retries_of
from django_workflow.engine.records import decode_config, decode_message_config
from django_workflow.engine.run_state import RunState
from django_workflow.engine.runs import append_invoked
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.errors import EngineError
from django_workflow.models import Delivery, JournalEntry, Run, Step, Waiter
from django_workflow.protocol.identifiers import uuid7
from django_workflow.protocol.steps import CallType, StepType, decode_step
from django_workflow.protocol.steps import Step as WireStep

Children = dict[int, list[Run]]
"""Runs that a run's steps have invoked, by the step's number; the oldest first."""

_CHUNK = 500
_SLEEPS = (StepType.SLEEP_FOR, StepType.SLEEP_UNTIL)


def first_call(unit: UnitOfWork, run: Run) -> Delivery:
    """The delivery that starts a new run: its payload, to its endpoint."""
    return Delivery(
        run_id=run.pk,
        message_key=run.pk,
        solo=True,
        destination=run.url,
        max_retries=retries_of(run),
        flow_key=run.flow_key,
        due_at=run.due_at or unit.now,
        created_at=unit.now,
    )


class Resumption:
    """`retries` are those that were asked for; None: as before. `upto` makes a fork: of the run's steps those up to
    that number, whose group (if it is in one) is gone on with."""

    def __init__(
        self,
        unit: UnitOfWork,
        failed: Run,
        run: Run,
        state: RunState,
        children: Children,
        retries: int | None,
        *,
        upto: int | None = None,
    ) -> None:
        self.unit = unit
        self.failed = failed
        self.run = run
        self.state = state
        self.children = children
        self.retries = retries
        self.upto = upto
        self.results: set[int] = set()
        self.plans: dict[int, tuple[int, WireStep]] = {}
        """The branches of parallel groups: where their plan stands in the old journal, and the plan."""
        self.answers: dict[int, int] = {}
        """Calls by the step's number: where their last answer stands in the old journal."""
        self.kept: set[int] = set()
        self.places: dict[int, int] = {}
        """Where the kept messages stand in the new journal, by their place in the old one."""
        self.copies: dict[int, JournalEntry] = {}
        """Entries of the new journal that a delivery brings, by their place in the old one."""
        self.last: JournalEntry | None = None
        self.old = {step.step_id: step for step in Step.objects.using(unit.alias).filter(run=failed)}

    def perform(self) -> None:
        """Write the new run's journal, steps and deliveries."""
        self.unit.flush_steps()  # the run itself: rows that point at it follow
        self._read()
        open_branches = sorted(self.plans.keys() - self.results)
        self._copy_journal()
        self._copy_steps()
        if self.upto is None:
            self._copy_early_events()
        if open_branches:
            self._open_group(open_branches)
        else:
            self._go_on()

    # The failed run

    def _read(self) -> None:
        """Find out what is finished and what is open, and which messages are worth copying."""
        entries = JournalEntry.objects.using(self.unit.alias).filter(run=self.failed)
        calls: list[tuple[int, int]] = []
        for position, call_type, step_id, config in entries.order_by("position").values_list(
            "position", "call_type", "step_id", "config"
        ):
            if call_type == CallType.STEP:
                if step_id is None or self._is_wanted(step_id):
                    self.kept.add(position)
                if step_id is not None and self._is_wanted(step_id):
                    self.results.add(step_id)
            elif message := decode_message_config(config):
                number = called_step(message).step_id
                if call_type == CallType.FROM_CALLBACK:
                    self.answers[number] = position
                else:
                    calls.append((number, position))
        plans = entries.filter(call_type=CallType.STEP, step_id=None).order_by("position")
        for position, body in plans.values_list("position", "body"):
            plan = decode_step(body)
            self.plans[plan.target_step or 0] = position, plan
        if self.upto is not None:
            self._leave_the_rest()
        self.answers = {number: position for number, position in self.answers.items() if number not in self.results}
        self.kept |= {position for number, position in calls if number in self.results or number in self.answers}
        self.kept |= set(self.answers.values())

    def _is_wanted(self, step_id: int) -> bool:
        return self.upto is None or step_id <= self.upto

    def _leave_the_rest(self) -> None:
        """Of a fork: forget the groups that begin after its last step, and answers of calls, which are made again.

        Raises EngineError when that step has no result.
        """
        if self.upto not in self.results:
            raise EngineError(f"Step {self.upto} of run {self.failed.run_id} has no result to fork after.", status=400)
        first = 0
        for number in sorted(self.plans):
            position, plan = self.plans[number]
            if number >= first + plan.concurrent or not first:
                first = number
            if not self._is_wanted(first):
                del self.plans[number]
                self.kept.discard(position)
        self.answers.clear()

    # What is copied

    def _copy_journal(self) -> None:
        """Copy the kept messages in their order; their places move up where one is left out."""
        wanted = {*self.answers.values(), *(position for position, _ in self.plans.values())}
        position = 0
        for chunk in self._chunks():
            rows = []
            for old in chunk:
                if old.position not in self.kept:
                    continue
                position += 1
                self.places[old.position] = position
                row = self._copy(old, position)
                rows.append(row)
                if old.position in wanted:
                    self.copies[old.position] = row
            JournalEntry.objects.using(self.unit.alias).bulk_create(rows)
            self.last = rows[-1] if rows else self.last
        self.state.length = position + 1

    def _chunks(self) -> Iterator[list[JournalEntry]]:
        entries = JournalEntry.objects.using(self.unit.alias).filter(run=self.failed).order_by("position")
        last = 0
        while chunk := list(entries.filter(position__gt=last)[:_CHUNK]):
            yield chunk
            last = chunk[-1].position

    def _copy(self, old: JournalEntry, position: int) -> JournalEntry:
        return JournalEntry(
            id=uuid7(),
            run=self.run,
            position=position,
            call_type=old.call_type,
            step_id=old.step_id,
            body=old.body,
            body_is_base64=old.body_is_base64,
            config=old.config,
            created_at=old.created_at,
        )

    def _copy_steps(self) -> None:
        """Show the finished steps; one that still sleeps goes on sleeping."""
        rows = []
        for step in self.old.values():
            if step.step_id not in self.results or step.position not in self.places:
                continue
            asleep = self._wakes_at(step) is not None
            rows.append(
                Step(
                    run=self.run,
                    step_id=step.step_id,
                    name=step.name,
                    step_type=step.step_type,
                    status=Step.Status.SLEEPING if asleep else Step.Status.SUCCESS,
                    concurrent=step.concurrent,
                    attempts=step.attempts,
                    queued_at=step.queued_at,
                    started_at=step.started_at,
                    finished_at=None if asleep else step.finished_at,
                    due_at=step.due_at if asleep else None,
                    position=self.places[step.position],
                    preview=step.preview,
                    event_id=step.event_id,
                )
            )
        Step.objects.using(self.unit.alias).bulk_create(rows, batch_size=_CHUNK)

    def _wakes_at(self, step: Step | None) -> datetime | None:
        """When a sleep ends that is not over yet. One that was over is, though the clock has been set back since."""
        if step is None or step.status == Step.Status.SUCCESS or step.step_type not in _SLEEPS:
            return None
        if step.due_at is None or step.due_at <= self.unit.now:
            return None
        return step.due_at

    def _copy_early_events(self) -> None:
        """Events that were sent to the failed run ahead of their wait are for this one."""
        early = Waiter.objects.using(self.unit.alias).filter(run=self.failed, state=Waiter.State.EARLY)
        for event in early.order_by("created_at", "pk"):
            self.unit.add_waiter(
                Waiter(
                    run=self.run,
                    event_id=event.event_id,
                    state=Waiter.State.EARLY,
                    event_data=event.event_data,
                    deduplication_id=event.deduplication_id,
                    created_at=event.created_at,
                )
            )

    # What is asked for again

    def _go_on(self) -> None:
        """Sequential: at most one step was open, and it is the next."""
        open_children = {number: runs for number, runs in self.children.items() if number not in self.results}
        if self.answers:
            number = max(self.answers)
            self._bring_back(number, self.copies[self.answers[number]])
        elif open_children:
            number = max(open_children)
            self._join(number, open_children[number], concurrent=1)
        else:
            self._call_again()

    def _call_again(self) -> None:
        """Make the call that follows the last finished step; if that is a sleep, when it is over."""
        if self.last is None:
            self._deliver(self.run.pk, 0, solo=True)
            return
        wakes_at = self._wakes_at(self.old.get(self.last.step_id or 0))
        if wakes_at is not None:
            why = f"Sleeping until {wakes_at:%Y-%m-%d %H:%M:%S} UTC."
            self.state.set(status=Run.Status.SLEEPING, due_at=wakes_at, why=why)
        self._deliver(self.last.pk, self.last.position, solo=True, config=self.last.config, not_before=wakes_at)

    def _open_group(self, numbers: list[int]) -> None:
        self.state.set(group_open=len(numbers))
        self.state.in_group = True
        for number in numbers:
            place, plan = self.plans[number]
            if number in self.answers:
                self._bring_back(number, self.copies[self.answers[number]], concurrent=plan.concurrent)
            elif number not in self.children:
                self._run_branch(number, self.copies[place], plan)
        # Last: a result may close the group, which then goes on.
        for number in numbers:
            if number in self.children and number not in self.answers:
                self._join(number, self.children[number], concurrent=self.plans[number][1].concurrent)

    def _run_branch(self, number: int, entry: JournalEntry, plan: WireStep) -> None:
        wakes_at = self._wakes_at(self.old.get(number))
        self._show(
            number,
            plan.step_name,
            plan.step_type,
            Step.Status.SLEEPING if wakes_at else Step.Status.QUEUED,
            plan.concurrent,
            due_at=wakes_at,
        )
        self._deliver(entry.pk, entry.position, config=entry.config, branch=plan, not_before=wakes_at)

    def _bring_back(self, number: int, entry: JournalEntry, *, concurrent: int = 1) -> None:
        """Bring the answer of a call to its endpoint once more."""
        callback = decode_message_config(entry.config)
        assert callback is not None
        name = called_step(callback).step_name
        old = self.old.get(number)
        began = old.started_at if old is not None else None
        self._show(number, name, StepType.CALL, Step.Status.RUNNING, concurrent, started_at=began or self.unit.now)
        self.unit.add_delivery(
            Delivery(
                run_id=self.run.pk,
                kind=Delivery.Kind.CALLBACK,
                flow_key=self.run.flow_key,
                message_key=entry.pk,
                position=entry.position,
                step_id=number,
                step_name=name[:255],
                destination=callback.destination,
                config=entry.config,
                body=entry.body,
                body_is_base64=entry.body_is_base64,
                max_retries=retries_of(self.run),
                due_at=self.run.due_at or self.unit.now,
                created_at=self.unit.now,
            )
        )

    def _join(self, number: int, children: list[Run], *, concurrent: int) -> None:
        """Take the end of an invoked run as the step's result, or wait for it."""
        invoker = decode_config(children[-1].config).invoker
        assert invoker is not None
        ended = next((child for child in children if child.is_finished), None)
        newest = ended or children[-1]
        self._show(
            number,
            invoker.step.step_name,
            StepType.INVOKE,
            Step.Status.WAITING,
            concurrent,
            started_at=newest.created_at,
            event_id=newest.run_id[:255],
        )
        if ended is not None:
            append_invoked(self.unit, self.state, invoker.step, ended.status, ended.result, due=self.run.due_at)
            return
        keys = [child.pk for child in children]
        Run.objects.using(self.unit.alias).filter(pk__in=keys).update(parent=self.run)
        self.unit.after.forgotten += keys
        if self.state.group_open == 0:
            why = f"Waiting for {newest.workflow}, run {newest.run_id}."
            self.state.set(status=Run.Status.WAITING, due_at=None, why=why)

    def _show(
        self, number: int, name: str, step_type: str, status: Step.Status, concurrent: int, **values: object
    ) -> None:
        self.unit.put_step(
            self.state,
            number,
            fresh=True,
            name=name[:255],
            step_type=step_type,
            status=status,
            concurrent=concurrent,
            **values,
        )

    def _deliver(
        self,
        key: UUID,
        position: int,
        *,
        solo: bool = False,
        config: str = "",
        branch: WireStep | None = None,
        not_before: datetime | None = None,
    ) -> None:
        """A call of the run's endpoint that brings its journal up to `position`."""
        row = first_call(self.unit, self.run)
        own = decode_message_config(config)
        if own is not None and self.retries is None:  # as in `runs.schedule_step`
            row.max_retries = get_settings().retries if own.retries is None else own.retries
        row.message_key = key
        row.position = position
        row.solo = solo
        row.config = config
        row.due_at = max(row.due_at, not_before or row.due_at)
        if branch is not None:
            row.step_id = branch.target_step
            row.step_name = branch.step_name[:255]
        self.unit.add_delivery(row)
