"""Events of realtime channels, kept in the order in which they were committed."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

from django.db import models

from django_workflow.models.fields import ExactCharField

SEQUENCE_BITS = 20
_SEQUENCE_MASK = (1 << SEQUENCE_BITS) - 1


def position_at(instant: datetime) -> int:
    """The first position of that millisecond."""
    return int(instant.timestamp() * 1000) << SEQUENCE_BITS


def format_position(position: int) -> str:
    """`<ms>-<seq>`, the id that clients see."""
    return f"{position >> SEQUENCE_BITS}-{position & _SEQUENCE_MASK}"


def parse_position(text: str) -> int:
    """The position of `<ms>-<seq>` (or of a bare `<ms>`). Raises ValueError."""
    milliseconds, _, sequence = text.partition("-")
    return (int(milliseconds) << SEQUENCE_BITS) + int(sequence or 0)


class ChannelEventQuerySet(models.QuerySet["ChannelEvent"]):
    def after(self, channel: str, position: int) -> Self:
        """Events of a channel above a position, oldest first."""
        return self.filter(channel=channel, position__gt=position).order_by("position")

    def newest_position(self, channel: str) -> int:
        """Position of the channel's newest event, 0 when it has none."""
        newest = self.filter(channel=channel).order_by("-position").values_list("position", flat=True).first()
        return newest or 0


class ChannelEvent(models.Model):
    """One event. `position` grows within its channel: milliseconds since 1970, then a sequence number.

    A position is taken under a lock that is held to the commit (the run's row for a run's channel), so readers that
    continue from the last position they saw miss nothing.
    """

    id = models.BigAutoField(primary_key=True)
    channel = ExactCharField(max_length=255)
    position = models.BigIntegerField()
    event = models.CharField(max_length=255)
    data = models.TextField()
    created_at = models.DateTimeField()

    objects: ClassVar[models.Manager[ChannelEvent]] = models.Manager.from_queryset(ChannelEventQuerySet)()

    class Meta:
        ordering = ("channel", "position")
        constraints = (models.UniqueConstraint(fields=("channel", "position"), name="workflow_event_position"),)
        indexes = (models.Index(fields=("created_at",), name="workflow_event_created"),)

    def __str__(self) -> str:
        return f"{self.channel} {self.event_id}"

    @property
    def event_id(self) -> str:
        return format_position(self.position)
