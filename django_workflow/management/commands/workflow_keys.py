"""`manage.py workflow_keys`: what clients of the engine's API need to know, as lines for an `.env` file."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import CommandError
from django.urls import NoReverseMatch, reverse

from django_workflow.conf import get_settings
from django_workflow.engine import signing_keys
from django_workflow.errors import Misconfigured
from django_workflow.management.base import WorkflowCommand

BAD_INPUT = 2
LOCAL_ORIGIN = "http://127.0.0.1:8000"


class Command(WorkflowCommand):
    help = "Print the URL, the token and the signing keys of the engine's API, one NAME=value per line."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.epilog = (
            "exit codes: 0 printed, 1 the keys come from the settings and cannot be rotated here, 2 bad input"
        )
        parser.add_argument(
            "--url",
            help=f"origin of this site, or the API's whole URL (default: the setting base_url, else {LOCAL_ORIGIN})",
        )
        parser.add_argument("--read-only", action="store_true", help="print the read-only token, and no keys")
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--rotate", action="store_true", help="first make the next signing key the current one, and a new next key"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        settings = get_settings()
        if settings.is_hosted:
            raise CommandError(
                "The engine is the hosted one (engine is 'qstash'): its console shows token and keys.",
                returncode=BAD_INPUT,
            )
        try:
            pair = signing_keys.rotate() if options["rotate"] else signing_keys.signing_pair()
        except Misconfigured as error:
            raise CommandError(str(error)) from error
        token = signing_keys.read_only_tokens()[0] if options["read_only"] else signing_keys.engine_token()
        values = {"QSTASH_URL": _api_url(options["url"] or settings.base_url or LOCAL_ORIGIN), "QSTASH_TOKEN": token}
        if not options["read_only"]:  # whoever has the keys can make deliveries that endpoints believe
            values |= {"QSTASH_CURRENT_SIGNING_KEY": pair.current, "QSTASH_NEXT_SIGNING_KEY": pair.next}
        if options["json"]:
            self.stdout.write(json.dumps(values, indent=2))
        else:
            self.stdout.write("\n".join(f"{name}={value}" for name, value in values.items()))
        self._warn(token)

    def _warn(self, token: str) -> None:
        if not get_settings().engine_api:
            self.stderr.write("The API is not served: set DJANGO_WORKFLOW['engine_api'] to True.")
        if not signing_keys.names_a_user(token):
            self.stderr.write(
                "The token of the settings does not name a user, which context.createWebhook of the JavaScript SDK "
                'needs: use base64 of {"UserID": "…", "Password": "…"}, or leave the setting `token` away.'
            )


def _api_url(url: str) -> str:
    """The API's URL: `url` itself when it has a path, else the place where it is served on that origin."""
    parts = urlsplit(url.rstrip("/"))
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise CommandError(f"--url: {url!r} is no URL such as https://shop.example.", returncode=BAD_INPUT)
    if parts.path:
        return url.rstrip("/")
    try:
        path = reverse("django_workflow:engine-api", args=["v2"])
    except NoReverseMatch as error:
        raise CommandError(
            'The URLs of django_workflow are not included. Add path("workflows/", include("django_workflow.urls")) to '
            "the project's urls.py.",
            returncode=BAD_INPUT,
        ) from error
    return url.rstrip("/") + path.removesuffix("/v2")
