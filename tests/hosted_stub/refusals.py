"""How the stub says no."""

from __future__ import annotations


class Refused(Exception):
    """The service's ordinary refusal: a run that has ended, a limit, something unknown."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Fault(Refused):
    """The request is not what the protocol's reference allows: 400 (or `status`), and the test fails."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(status, reason)
