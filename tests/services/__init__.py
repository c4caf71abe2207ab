"""What the tests need around them: databases, Redis, a browser, Node.js, the official clients in other languages,
and several pairs of Python and Django.

`python -m tests.services` is what the Makefile calls. It needs the standard library alone for installing, and the
project's environment for the rest:

    install [NAME ...]          apt-get install what is missing (as root on Debian; says so elsewhere)
    run [--only NAMES] -- CMD   run a command with the services up and the variables below set
    suite [-- PYTEST ARGS]      every pass of `make test`, and a list of what could not run; --newest, --slow
    install-clients             the official clients that tests/interop runs, into .interop/ (npm and pip download them)
    newest | matrix             the unit tests on the newest pair | on every pair that this machine has

A service that listens in its usual place and lets us in is used as it is; otherwise a throw-away one is started in a
temporary folder and stopped at the end. Nothing else is ever stopped.

Variables that tests and their settings read (set one by hand to use a service of your own):

    WORKFLOW_TEST_DATABASE          sqlite (default), postgresql or mariadb: what the tests run on
    WORKFLOW_TEST_DATABASE_NAME     for processes that a test starts: connect to this very database
    WORKFLOW_TEST_POSTGRESQL_URL    postgresql://user:password@host:port/name, or …@/name?host=/socket/folder
    WORKFLOW_TEST_MARIADB_URL       mysql://user:password@host:port/name, or …@/name?unix_socket=/path
    WORKFLOW_TEST_REDIS_URL         redis://host:port/15 or unix:///path?db=15; tests may empty that database
    WORKFLOW_TEST_CHROMIUM          path of a Chromium or Chrome
    WORKFLOW_TEST_NODE              path of node
    WORKFLOW_TEST_PROCESSES         how many test processes a pass has (default: the number of CPUs, at least 2)
    WORKFLOW_TEST_EVERYTHING        1: leave nothing out on the other databases and pairs (see tests/selection.py)
    WORKFLOW_TEST_FRESH             1: leave running services alone and always start throw-away ones
    WORKFLOW_REQUIRE_ALL            1: a test that would be skipped for a missing service fails instead
"""
