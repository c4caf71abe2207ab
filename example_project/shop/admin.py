"""The shop's rows in the admin. The runs behind them have their own pages under "Workflows"."""

from __future__ import annotations

from django.contrib import admin

from django_workflow.admin.inlines import WorkflowRunsInline, WorkflowStatusMixin
from example_project.shop import models


class OrderLineInline(admin.TabularInline):
    model = models.OrderLine
    extra = 0
    autocomplete_fields = ("product",)


class BadRowInline(admin.TabularInline):
    model = models.BadRow
    extra = 0
    readonly_fields = ("line", "reason", "text")


@admin.register(models.Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ("sku", "name", "price", "stock")
    search_fields = ("sku", "name")


@admin.register(models.Order)
class OrderAdmin(WorkflowStatusMixin, admin.ModelAdmin):
    list_display = ("__str__", "email", "total", "status", "workflow_status", "created_at")
    list_filter = ("status",)
    search_fields = ("email", "workflow_run_id")
    inlines = (OrderLineInline, WorkflowRunsInline)


@admin.register(models.Payment)
class PaymentAdmin(admin.ModelAdmin):
    list_display = ("order", "amount", "state", "attempts", "reference", "updated_at")
    list_filter = ("state",)
    list_select_related = ("order",)


@admin.register(models.Parcel)
class ParcelAdmin(admin.ModelAdmin):
    list_display = ("tracking_number", "order", "pickup_at")
    list_select_related = ("order",)


@admin.register(models.Invoice)
class InvoiceAdmin(admin.ModelAdmin):
    list_display = ("number", "order", "created_at")
    list_select_related = ("order",)


@admin.register(models.DeliveryNote)
class DeliveryNoteAdmin(admin.ModelAdmin):
    list_display = ("order", "written_at")
    list_select_related = ("order",)


@admin.register(models.Complaint)
class ComplaintAdmin(admin.ModelAdmin):
    list_display = ("__str__", "text", "refunded", "created_at")


@admin.register(models.ImportReport)
class ImportReportAdmin(admin.ModelAdmin):
    list_display = ("file_name", "rows", "imported", "total", "started_at", "finished_at")
    inlines = (BadRowInline,)


@admin.register(models.ImportedOrder)
class ImportedOrderAdmin(admin.ModelAdmin):
    list_display = ("external_id", "placed_on", "email", "product", "amount")
    search_fields = ("external_id", "email")
    date_hierarchy = "placed_on"


@admin.register(models.DailyReport)
class DailyReportAdmin(admin.ModelAdmin):
    list_display = ("day", "orders", "turnover", "imported_orders", "imported_turnover", "updated_at")
    date_hierarchy = "day"
