"""A strict stub of the hosted service, in memory, for tests of projects that use it.

`HostedStub` answers the HTTP API (`handle`, or `wsgi.application`) and makes deliveries (`run_due`) on a clock that the
test moves. It is written from the protocol's reference and the captured traffic in `tests/vectors`, and imports nothing
from `django_workflow`: what the two understand differently shows up as a failing test.

It is stricter than the service: whatever the reference does not allow is refused with 400 and kept in `faults`, which
every test must leave empty. What an engine refuses in its ordinary life (an append to a run that has ended, a limit)
is answered as documented and is no fault.
"""

from tests.hosted_stub.network import Answer, HttpRequest, NoAnswer
from tests.hosted_stub.service import HostedStub

__all__ = ["Answer", "HostedStub", "HttpRequest", "NoAnswer"]
