"""What goes wrong, on purpose: killed processes, lost databases, stopped clocks, endpoints that lie.

These tests mirror no module: each file breaks one thing around a running engine, and `invariants.assert_sound` looks
at all rows afterwards. Each kind has a short form in the ordinary suite; the long forms are marked `slow`
(`make test-faults`). `docs/explanation/faults.md` says what was broken and what happens then.

* `invariants` what must hold whatever happened; also for other tests
* `nursery`, `crashes` worker and web processes that are forked in milliseconds, and end at a given point
* `machine` breaks the database under a worker of the test's own process
"""
