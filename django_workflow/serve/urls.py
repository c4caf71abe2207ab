"""The endpoints of workflows, and the route by which the worker tries out whether they can be reached."""

from django.urls import path

from django_workflow.serve import views

urlpatterns = [
    path("serve/-/ping/", views.ping, name="serve-ping"),
    path("serve/<str:name>/", views.serve, name="serve"),
]
