"""The endpoint: verifies, replays and answers the engine's deliveries, one invocation each."""
