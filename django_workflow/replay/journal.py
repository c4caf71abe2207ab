"""The finished steps of a run, in replay order.

Made from the messages of a delivery (decoded by `serve`, or found by reference in the session); read by `executor`,
which asks for step after step by its number. A journal belongs to one invocation: steps that are run and committed
within it are appended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import msgspec

from django_workflow.errors import StepError
from django_workflow.protocol.steps import JournalMessage, Step

STEP = "step"


class Journal:
    """Plan and result steps by number; every number is told once, the first entry wins.

    `results` is keyed by step id, `plans` by target step. `last` is the newest entry: the message that is being
    delivered. `highest` is the largest number that has an entry, 0 for a run that has only its payload.
    """

    __slots__ = ("highest", "is_last_duplicate", "last", "plans", "results", "steps")

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self.results: dict[int, Step] = {}
        self.plans: dict[int, Step] = {}
        self.steps: list[Step] = []
        self.last: Step | None = None
        self.highest = 0
        self.is_last_duplicate = False
        """The newest message repeats an earlier one, so this delivery has nothing to do."""
        for step in steps:
            self.append(step)

    @classmethod
    def from_messages(cls, messages: Sequence[JournalMessage]) -> Journal:
        """The journal of a delivery. The first message is the run's payload; calls on their way are skipped.

        Raises StepError when a message is no step. Source: the SDKs, which tolerate messages that come twice.
        """
        journal = cls()
        journal.extend(islice(messages, 1, None))
        return journal

    def extend(self, messages: Iterable[JournalMessage]) -> None:
        """Add the steps of further messages. Raises StepError when one is none; nothing is added then."""
        steps = []
        for message in messages:
            if message.call_type == STEP:
                try:
                    steps.append(message.step)
                except msgspec.MsgspecError as error:
                    raise StepError(f"Message {message.message_id} of the journal is not a step: {error}") from error
        for step in steps:
            self.append(step)

    def entry(self, number: int) -> Step | None:
        """What is recorded under a number: the step's result, or its plan; None for a step that is new."""
        return self.results.get(number) or self.plans.get(number)

    def append(self, step: Step) -> None:
        """Add the newest step. One that is known already only sets `is_last_duplicate`."""
        number = step.step_id
        if number:
            entries = self.results
        else:
            number = step.target_step or 0
            entries = self.plans
        # Number 0 is the payload's.
        if not number or number in entries:
            self.is_last_duplicate = True
            return
        entries[number] = step
        self.steps.append(step)
        self.last = step
        self.is_last_duplicate = False
        if number > self.highest:
            self.highest = number
