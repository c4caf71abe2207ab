"""Replay: known steps are answered from the journal, the next one is run. No Django models, no I/O of its own."""
