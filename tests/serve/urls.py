"""The endpoints alone, for tests that need no other page."""

from django.urls import include, path

urlpatterns = [path("workflows/", include(("django_workflow.serve.urls", "django_workflow")))]
