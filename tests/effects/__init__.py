"""An app of the test project: workflows whose steps write rows, for tests that run workers in other processes."""
