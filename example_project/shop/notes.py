"""A delivery note, written word by word: the steps of `workflows.write_delivery_note`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from django_workflow.realtime.channel import Realtime
from django_workflow.realtime.stores import StoreUnavailable
from example_project.shop.models import DeliveryNote, Order

WORD = "note.word"
SECONDS_PER_WORD = 0.05
"""As fast as one can read. A language model would have a pace of its own."""


def compose(order_id: int) -> str:
    """The note's text, made of the order's rows."""
    order = Order.objects.get(pk=order_id)
    lines = list(order.lines.select_related("product"))
    sentences = [
        f"{line.quantity} x {line.product}, {line.price} EUR each and {line.amount} EUR together; "
        f"{line.product.stock} more are on the shelf."
        for line in lines
    ]
    pieces = sum(line.quantity for line in lines)
    return "\n".join(
        [
            f"Dear {order.email.partition('@')[0].capitalize()},",
            f"thank you for order {order.pk}. In this parcel you find:",
            *sentences,
            f"That makes {pieces} piece{'s' if pieces > 1 else ''} for {order.total} EUR. "
            "Should anything be missing or broken, tell us, and a person will look into it.",
            "Your shop",
        ]
    )


def write(order_id: int, run_id: str, text: str, say: Callable[[int, str], None]) -> int:
    """Say the text's words one by one with their numbers, then keep it; how many there were.

    Run again, it says the same words by the same numbers, so that a reader can put each where it belongs.
    """
    words = re.findall(r"\S+\s*", text)
    for number, word in enumerate(words):
        say(number, word)
        time.sleep(SECONDS_PER_WORD)
    DeliveryNote.objects.update_or_create(order_id=order_id, defaults={"text": text, "workflow_run_id": run_id})
    return len(words)


def written(run_id: str) -> str:
    """The words of a run so far, from its channel: for pages that are loaded while it writes."""
    try:
        messages = Realtime().channel(run_id).history(newest=False)
    except StoreUnavailable:  # the page shows the run all the same
        return ""
    words = {message.value["number"]: message.value["word"] for message in messages if message.event == WORD}
    return "".join(words[number] for number in sorted(words))
