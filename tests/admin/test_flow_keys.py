from __future__ import annotations

from datetime import timedelta

from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from django_workflow.models import FlowKey
from django_workflow.protocol.identifiers import uuid7
from tests.admin.builders import make_user

LIST = "/admin/django_workflow/flowkey/"
HOSTILE = '<img src=x onerror="alert(1)">'


def act(client: Client, action: str, *keys: FlowKey, **values: str) -> str:
    """Choose an action for these keys; what the page shows then."""
    chosen = {"action": action, "_selected_action": [str(key.pk) for key in keys], **values}
    return client.post(LIST, chosen, follow=True).content.decode()


def test_a_key_is_paused_after_a_question_and_the_reason_is_noted(client: Client, db: None) -> None:
    client.force_login(make_user("ann", "view_flowkey", "pause_flowkey"))
    open_, paused = FlowKey.objects.create(key="card"), FlowKey.objects.create(key="mail", paused=True)
    asked = act(client, "pause", open_, paused)
    assert "Pause 1 flow-control key" in asked
    assert "It is paused already." in asked
    open_.refresh_from_db()
    assert not open_.paused
    done = act(client, "pause", open_, paused, confirmed="yes", reason="the card service is down")
    assert "1 key was paused." in done
    open_.refresh_from_db()
    assert open_.paused
    (entry,) = LogEntry.objects.all()
    assert (entry.user.get_username(), entry.object_id) == ("ann", str(open_.pk))
    assert entry.get_change_message() == "Paused. Reason: the card service is down"
    assert "the card service is down" in client.get(f"{LIST}{open_.pk}/history/").content.decode()


def test_a_key_is_resumed_and_its_rate_reset(client: Client, db: None) -> None:
    client.force_login(make_user("root", superuser=True))
    now = timezone.now()
    key = FlowKey.objects.create(
        key="mail", paused=True, rate=5, window_count=5, window_started_at=now, window_ends_at=now + timedelta(hours=1)
    )
    assert "5 of 5 in 1.0 s" in client.get(LIST).content.decode()
    act(client, "resume", key, confirmed="yes")
    act(client, "reset", key, confirmed="yes")
    key.refresh_from_db()
    assert (key.paused, key.window_count) == (False, 0)
    # A double submit finds nothing left to do.
    assert "It is not paused." in act(client, "resume", key)
    assert LogEntry.objects.count() == 2


def test_the_page_of_a_key_has_its_buttons(client: Client, db: None) -> None:
    client.force_login(make_user("ann", "view_flowkey", "pause_flowkey"))
    key = FlowKey.objects.create(key="card")
    url = f"{LIST}{key.pk}/change/"
    page = client.get(url)
    assert [(button.name, button.why_not) for button in page.context["buttons"]] == [
        ("pause", ""),
        ("reset", "It has no rate."),
    ]
    pause = page.context["buttons"][0].url
    asked = client.get(pause).content.decode()
    assert 'value="Pause 1 flow-control key"' in asked
    assert f'href="{url}"' in asked  # the way back
    assert client.post(pause, {"confirmed": "yes", "reason": "down"})["Location"] == url
    key.refresh_from_db()
    assert key.paused
    assert [button.name for button in client.get(url).context["buttons"]] == ["resume", "reset"]
    assert client.get(f"{LIST}{key.pk}/do/explode/").status_code == 404
    assert client.get(f"{LIST}{uuid7()}/do/pause/").status_code == 404


def test_without_the_permission_there_is_no_action_and_none_is_taken(viewing: Client) -> None:
    key = FlowKey.objects.create(key="card")
    assert 'value="pause"' not in viewing.get(LIST).content.decode()
    act(viewing, "pause", key, confirmed="yes")
    assert viewing.get(f"{LIST}{key.pk}/change/").context["buttons"] == []
    assert viewing.post(f"{LIST}{key.pk}/do/pause/", {"confirmed": "yes"}).status_code == 403
    key.refresh_from_db()
    assert not key.paused


def test_names_and_reasons_are_text_and_no_html(client: Client, db: None) -> None:
    client.force_login(make_user("root", superuser=True))
    key = FlowKey.objects.create(key=HOSTILE)
    for page in (client.get(LIST).content.decode(), act(client, "pause", key)):
        assert HOSTILE not in page
        assert "&lt;img" in page
