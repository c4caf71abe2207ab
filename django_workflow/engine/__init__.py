"""The embedded engine: a QStash in the project's own database."""
