"""The endpoints and the public address of webhooks."""

from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def nothing(request: HttpRequest, **kwargs: str) -> HttpResponse:
    return HttpResponse()


endpoints = [
    path("serve/<str:name>/", nothing, name="serve"),
    path("hooks/<str:run_id>/<str:event_id>/", nothing, name="hook"),
]
urlpatterns = [path("workflows/", include((endpoints, "django_workflow")))]
