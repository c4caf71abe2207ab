"""What a follower of one channel hears, as text of messages: the same on every transport that stays open."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from django_workflow.models.channel_event import format_position
from django_workflow.realtime import history
from django_workflow.realtime.feed import current_feed
from django_workflow.realtime.history import in_database
from django_workflow.realtime.messages import Connected, encode, gap_message


@dataclass(frozen=True, slots=True)
class Heard:
    """The text of one message. `position` is that of an event, and None for what the server itself says."""

    text: str
    position: int | None = None


async def follow(channel: str, position: int | None) -> AsyncGenerator[list[Heard]]:
    """Everything of a channel from a position on (None: only what is new), a page at a time, without end.

    First comes `connected`, then `gap` where events after the position may be missing. Close the iterator to stop.
    """
    newest = await in_database(history.newest, channel)
    subscription = current_feed().subscribe(channel, newest, position)
    try:
        beginning = [Heard(encode(Connected(channel=channel, cursor=format_position(newest))))]
        if position and await in_database(history.has_gap, channel, position):
            oldest = await in_database(history.oldest, channel)
            beginning.append(Heard(encode(gap_message(channel, oldest, newest))))
        yield beginning
        while True:
            yield [Heard(message.text, message.position) for message in await subscription.next_page()]
    finally:
        subscription.close()
