from __future__ import annotations

from django.urls import path

from example_project.guide import views

app_name = "guide"
urlpatterns = [
    path("", views.home, name="home"),
    path("start/<str:variant>/", views.start, name="start"),
    path("<str:run_id>/", views.home, name="run"),
    path("<str:run_id>/continue/", views.answer, name="answer"),
]
