"""The users of the public development server, known to every SDK. Pure.

`QSTASH_DEV=true` makes an SDK use the first one's token and keys, and accept a server on the port that answers
`GET /v2/keys` with them. They protect nothing: that is why the server listens to this machine alone.
Source: QStash documentation, "Local Development".
"""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class User:
    """Who publishes: a bearer token in the form that SDKs read, and the keys that deliveries are signed with."""

    name: str
    password: str
    current_signing_key: str
    next_signing_key: str

    @property
    def token(self) -> str:
        text = f'{{"UserID":"{self.name}","Password":"{self.password}"}}'
        return base64.b64encode(text.encode()).decode()


USERS = {
    1: User("defaultUser", "defaultPassword", "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r", "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"),
    2: User("testUser1", "testPassword", "sig_7GVPjvuwsfqF65iC8fSrs1dfYruM", "sig_5NoELc3EFnZn4DVS5bDs2Nk4b7Ua"),
    3: User("testUser2", "testPassword", "sig_6jWGaWRxHsw4vMSPJprXadyvrybF", "sig_7qHbvhmahe5GwfePDiS5Lg3pi6Qx"),
    4: User("testUser3", "testPassword", "sig_5T8FcSsynBjn9mMLBsXhpacRovJf", "sig_7GFR4YaDshFcqsxWRZpRB161jguD"),
}
