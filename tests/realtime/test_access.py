from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core import signing
from pytest_django import DjangoAssertNumQueries

from django_workflow.realtime import access
from django_workflow.realtime.access import AccessDenied
from tests.realtime.helpers import CHANNEL, make_run


def reason(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(AccessDenied) as caught:
        access.check_access(*args, **kwargs)
    return caught.value.reason


def allow(user: User, codename: str) -> User:
    user.user_permissions.add(Permission.objects.get(codename=codename, content_type__app_label="django_workflow"))
    return User.objects.get(pk=user.pk)


# The rule


def test_nobody_is_refused(db: None, somebody: User) -> None:
    make_run()
    for user in (None, AnonymousUser(), somebody):
        assert not access.may(user, CHANNEL)


def test_a_superuser_may_read_and_respond(superuser: User) -> None:
    assert access.may(superuser, CHANNEL)
    assert access.may(superuser, CHANNEL, "respond")


def test_holders_of_view_run_may_read_only(somebody: User) -> None:
    user = allow(somebody, "view_run")
    assert access.may(user, CHANNEL)
    assert not access.may(user, CHANNEL, "respond")


def test_holders_of_notify_run_may_respond(somebody: User) -> None:
    assert access.may(allow(somebody, "notify_run"), CHANNEL, "respond")


def test_the_owner_may_read_and_respond_to_the_own_run_alone(somebody: User) -> None:
    make_run(owner=somebody)
    make_run("wfr_other")
    assert access.may(somebody, CHANNEL)
    assert access.may(somebody, CHANNEL, "respond")
    assert not access.may(somebody, "wfr_other")


def test_an_inactive_user_is_refused(superuser: User) -> None:
    superuser.is_active = False
    assert not access.may(superuser, CHANNEL)


def test_channels_that_are_no_runs_are_refused_by_default(superuser: User) -> None:
    assert not access.may(superuser, "user-42")


def rule_of_the_project(user: User, channel: str, scope: str) -> bool:
    if channel == "broken":
        raise LookupError(channel)
    return (channel, scope) == ("user-42", "read")


def test_the_project_may_have_a_rule_of_its_own(settings: Any, superuser: User) -> None:
    settings.DJANGO_WORKFLOW = {"realtime_authorize": f"{__name__}.rule_of_the_project"}
    assert access.may(AnonymousUser(), "user-42")
    assert not access.may(AnonymousUser(), "user-42", "respond")
    assert not access.may(superuser, CHANNEL)


def test_a_rule_that_raises_denies(settings: Any, superuser: User, caplog: pytest.LogCaptureFixture) -> None:
    settings.DJANGO_WORKFLOW = {"realtime_authorize": f"{__name__}.rule_of_the_project"}
    assert not access.may(superuser, "broken")
    assert "access is denied" in caplog.text


# Tokens


def test_a_token_admits_to_its_channels_alone() -> None:
    token = access.make_token([CHANNEL])
    assert access.may(None, CHANNEL, token=token)
    assert reason(None, "wfr_other", token=token) == "forbidden"


def test_a_token_for_reading_does_not_allow_to_respond() -> None:
    assert not access.may(None, CHANNEL, "respond", access.make_token([CHANNEL]))
    assert access.may(None, CHANNEL, "respond", access.make_token([CHANNEL], respond=True))


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "a:b:c",
        signing.dumps({"channels": [CHANNEL], "expires": 1 << 40, "respond": True}),  # signed for something else
        signing.dumps({"channels": CHANNEL, "expires": 1 << 40}, salt="django_workflow.realtime.channel"),
        signing.dumps([], salt="django_workflow.realtime.channel"),
    ],
    ids=["no token", "three parts", "signed for something else", "no list of channels", "no object"],
)
def test_a_forged_token_is_refused(token: str) -> None:
    assert reason(None, CHANNEL, token=token) == "token_invalid"


def test_a_changed_token_is_refused() -> None:
    token = access.make_token([CHANNEL])
    assert reason(None, CHANNEL, token=token[:-2] + ("AA" if token[-2:] != "AA" else "BB")) == "token_invalid"


def test_an_expired_token_is_refused() -> None:
    assert reason(None, CHANNEL, token=access.make_token([CHANNEL], lifetime=timedelta(0))) == "token_expired"


def test_a_bad_token_takes_nothing_from_who_may_read(superuser: User) -> None:
    assert access.may(superuser, CHANNEL, token="nonsense")


def test_a_token_costs_no_query(db: None, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    token = access.make_token([CHANNEL])
    with django_assert_num_queries(0):
        assert access.may(AnonymousUser(), CHANNEL, token=token)


# Who the user of an open connection is by now


def session_of(user: User) -> Any:
    session = import_module(django_settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = django_settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session


def test_the_user_of_a_session_stays(somebody: User) -> None:
    assert access.current_user({"user": somebody, "session": session_of(somebody)}) == somebody


def test_who_logged_out_is_nobody(somebody: User) -> None:
    session = session_of(somebody)
    type(session)(session.session_key).flush()
    assert access.current_user({"user": somebody, "session": session}) is None


def test_who_changed_the_password_is_nobody(somebody: User) -> None:
    scope = {"user": somebody, "session": session_of(somebody)}
    somebody.set_password("another")
    somebody.save()
    assert access.current_user(scope) is None


def test_a_session_survives_a_new_secret_key_unchanged(somebody: User, settings: Any) -> None:
    session = session_of(somebody)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another key, which is long enough as well, for tests"
    assert access.current_user({"user": somebody, "session": session}) == somebody
    assert type(session)(session.session_key).get(SESSION_KEY) == str(somebody.pk)


def test_a_deactivated_user_is_nobody(somebody: User) -> None:
    scope = {"user": somebody, "session": session_of(somebody)}
    User.objects.update(is_active=False)
    assert access.current_user(scope) is None


def test_a_user_without_session_is_read_anew(somebody: User) -> None:
    User.objects.update(is_superuser=True)
    user = access.current_user({"user": somebody})
    assert isinstance(user, User)
    assert user.is_superuser


# Origins


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://shop.example", True),
        ("http://shop.example:8000", True),
        ("HTTPS://SHOP.EXAMPLE", True),
        ("https://evil.example", False),
        ("https://shop.example.evil.example", False),
        ("https://partner.example", True),  # CSRF_TRUSTED_ORIGINS
        ("http://partner.example", False),
        ("null", False),
        ("file://", False),
        ("shop.example", False),
        ("", False),
    ],
)
def test_pages_of_other_sites_may_not_connect(settings: Any, origin: str, allowed: bool) -> None:
    settings.ALLOWED_HOSTS = ["shop.example"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://partner.example"]
    assert access.origin_allowed([(b"host", b"shop.example"), (b"origin", origin.encode())]) is allowed


def test_programs_send_no_origin() -> None:
    assert access.origin_allowed([(b"host", b"testserver")])


def test_two_origins_are_none() -> None:
    assert not access.origin_allowed([(b"origin", b"http://testserver"), (b"origin", b"http://testserver")])


def test_localhost_is_allowed_while_debugging(settings: Any) -> None:
    settings.ALLOWED_HOSTS, settings.DEBUG = [], True
    assert access.origin_allowed([(b"origin", b"http://localhost:8000")])
    assert access.origin_allowed([(b"origin", b"http://[::1]:8000")])
    assert not access.origin_allowed([(b"origin", b"http://evil.example")])
