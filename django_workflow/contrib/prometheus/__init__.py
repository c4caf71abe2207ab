"""Metrics for Prometheus (the extra `prometheus`): add `django_workflow.contrib.prometheus` to INSTALLED_APPS.

What happens to runs and steps is counted where it is committed, which is in the workers; what waits is read from the
database when it is asked for. `urls` serves both, and `workflow_worker --metrics-port` does so in a worker process.
"""
