"""The wire between endpoint and engine: structs and their codecs. Runs without Django."""
