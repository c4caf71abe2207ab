"""The client: one typed method per thing that can be asked of the engine, over the configured transport."""
