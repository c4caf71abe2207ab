"""The REST API, for staff by default: trigger workflows, look at runs, answer and cancel them."""
