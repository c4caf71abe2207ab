from __future__ import annotations

from django.urls import path

from example_project.shop import services, views

app_name = "shop"
urlpatterns = [
    path("", views.home, name="home"),
    path("orders/fulfil/", views.fulfil, name="fulfil"),
    path("orders/<int:pk>/", views.order, name="order"),
    path("orders/<int:pk>/approval/", views.decide, name="decide"),
    path("orders/<int:pk>/start-over/", views.start_over, name="start_over"),
    path("orders/<int:pk>/invoice/", views.invoice, name="invoice"),
    path("import/", views.import_page, name="import"),
    path("import/start/", views.start_import, name="start_import"),
    path("import/<str:run_id>/", views.import_page, name="import_run"),
    path("report/", views.report_page, name="report"),
    path("report/start/", views.start_report, name="start_report"),
    path("report/<str:run_id>/", views.report_page, name="report_run"),
    path("parcel/", views.parcel_page, name="parcel"),
    path("parcel/start/", views.start_parcel, name="start_parcel"),
    path("parcel/<str:run_id>/", views.parcel_page, name="parcel_run"),
    path("parcel/<int:pk>/hand-over/", views.hand_over, name="hand_over"),
    path("complaint/", views.complaint_page, name="complaint"),
    path("complaint/start/", views.start_complaint, name="start_complaint"),
    path("complaint/<str:run_id>/", views.complaint_page, name="complaint_run"),
    path("note/", views.note_page, name="note"),
    path("note/start/", views.start_note, name="start_note"),
    path("note/<str:run_id>/", views.note_page, name="note_run"),
    path("together/", views.together, name="together"),
    path("together/start/", views.start_together, name="start_together"),
    # Played by this demo, but reached over HTTP like any service of somebody else.
    path("services/payments/charge/", services.charge, name="charge"),
    path("services/payments/refund/", services.refund, name="refund"),
    path("services/courier/parcels/", services.announce_parcel, name="announce_parcel"),
]
