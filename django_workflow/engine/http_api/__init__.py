"""The engine's HTTP door: the QStash API, for clients in any language. `routes.handle` is all of it, as a function."""
