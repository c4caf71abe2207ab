"""Events in the project's database: part of the transaction that emits them, and there for every process.

A channel's position is taken under the lock of its row, which is held to the commit: a reader that goes on from the
last position it saw misses nothing. (The events of runs are written by the engine, under the run's lock.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.db import transaction
from django.db.models import Count, F, Max, Q
from django.db.models.functions import Greatest
from django.utils import timezone

from django_workflow.conf import get_settings
from django_workflow.models import Channel, ChannelEvent
from django_workflow.models.channel_event import ChannelEventQuerySet, position_at
from django_workflow.realtime.messages import Message
from django_workflow.realtime.stores import ChannelInfo, History, NewEvent

# Each channel takes two parameters of a statement (SQLite: 999 on Django 5.2) and one level of its expression.
CHANNELS_PER_STATEMENT = 200
LOOKED_AT = 2000
"""Of the newest events: whose channels are listed besides those of the project's own."""


class DatabaseStore:
    transactional = True

    @property
    def _alias(self) -> str:
        return get_settings().database

    def append(self, events: Sequence[NewEvent], keep: History) -> list[int]:
        with transaction.atomic(using=self._alias):
            # Locks are taken in one order, whatever order the events have.
            first = {name: self._reserve(name, count, keep) for name, count in sorted(_count(events).items())}
            positions = []
            for event in events:
                positions.append(first[event.channel])
                first[event.channel] += 1
            now = timezone.now()
            self._events().bulk_create(
                ChannelEvent(
                    channel=event.channel, position=position, event=event.event, data=event.data, created_at=now
                )
                for event, position in zip(events, positions, strict=True)
            )
            if keep.max_length is not None:
                for channel in first:
                    self._trim(channel, keep.max_length)
        return positions

    def _reserve(self, name: str, count: int, keep: History) -> int:
        """The first of `count` positions. The update takes the lock: on SQLite a transaction must begin by writing."""
        now = timezone.now()
        expires_at = now + (keep.expire_after or get_settings().retention)
        channels = Channel.objects.using(self._alias).filter(name=name)
        position = Greatest(F("position") + count, position_at(now) + count - 1)
        if not channels.update(position=position, expires_at=expires_at):
            Channel.objects.using(self._alias).bulk_create(
                [Channel(name=name, position=self.newest(name), expires_at=expires_at)], ignore_conflicts=True
            )
            channels.update(position=position, expires_at=expires_at)
        return channels.values_list("position", flat=True).get() - count + 1

    def _trim(self, channel: str, max_length: int) -> None:
        kept = self._events().filter(channel=channel).order_by("-position").values_list("position", flat=True)
        last_out = kept[max_length : max_length + 1].first() if max_length else None
        if last_out is not None:
            self._events().filter(channel=channel, position__lte=last_out).delete()

    def forget(self, channels: Sequence[str]) -> None:
        self._events().filter(channel__in=channels).delete()

    def newest(self, channel: str) -> int:
        return self._events().newest_position(channel)

    def oldest(self, channel: str) -> int:
        positions = self._events().filter(channel=channel).order_by("position").values_list("position", flat=True)
        return positions.first() or 0

    def page_after(self, channel: str, position: int, limit: int) -> list[Message]:
        return _messages(self._events().after(channel, position), limit)

    def pages_after(self, positions: Mapping[str, int], limit: int) -> list[Message]:
        found: list[Message] = []
        pairs = list(positions.items())
        for start in range(0, len(pairs), CHANNELS_PER_STATEMENT):
            wanted = Q()
            for channel, position in pairs[start : start + CHANNELS_PER_STATEMENT]:
                wanted |= Q(channel=channel, position__gt=position)
            found += _messages(self._events().filter(wanted).order_by("channel", "position"), limit - len(found))
            if len(found) == limit:
                break
        return found

    def between(self, channel: str, first: int, last: int, limit: int, *, newest: bool) -> list[Message]:
        events = self._events().filter(channel=channel, position__gte=first, position__lte=last)
        found = _messages(events.order_by("-position" if newest else "position"), limit)
        return found[::-1] if newest else found

    def channels(self, search: str, limit: int) -> list[ChannelInfo]:
        own = Channel.objects.using(self._alias).order_by("-position")
        if search:
            own = own.filter(name__contains=search)
            found = self._events().filter(channel__startswith=search).order_by().values_list("channel", flat=True)
            others = list(found.distinct()[:limit])
        else:
            newest = self._events().order_by("-created_at").values_list("channel", flat=True)[:LOOKED_AT]
            others = list(dict.fromkeys(newest))[:limit]
        names = list(dict.fromkeys([*own.values_list("name", flat=True)[:limit], *others]))
        counted: list[ChannelInfo] = []
        for start in range(0, len(names), CHANNELS_PER_STATEMENT):
            events = self._events().filter(channel__in=names[start : start + CHANNELS_PER_STATEMENT]).order_by()
            rows = events.values_list("channel").annotate(kept=Count("pk"), newest=Max("position"))
            counted += [ChannelInfo(*row) for row in rows]
        return sorted(counted, key=lambda info: -info.newest)[:limit]

    def _events(self) -> ChannelEventQuerySet:
        events = ChannelEvent.objects.using(self._alias).all()
        assert isinstance(events, ChannelEventQuerySet)
        return events


def _count(events: Sequence[NewEvent]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for event in events:
        counts[event.channel] = counts.get(event.channel, 0) + 1
    return counts


def _messages(events: ChannelEventQuerySet, limit: int) -> list[Message]:
    rows = events.values_list("channel", "position", "event", "data")[:limit]
    return [Message(*row) for row in rows]
