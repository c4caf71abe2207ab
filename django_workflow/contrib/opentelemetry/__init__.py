"""Traces by OpenTelemetry (the extra `otel`): add `django_workflow.contrib.opentelemetry` to INSTALLED_APPS.

A run is one trace: the span that it was triggered in is kept in the run's headers (`traceparent`, by the propagator
that the project has set), and each call of the workflow goes on from there.
"""
