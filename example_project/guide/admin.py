from __future__ import annotations

from django.contrib import admin

from example_project.guide.models import Notice


@admin.register(Notice)
class NoticeAdmin(admin.ModelAdmin):
    list_display = ("workflow_run_id", "text", "created_at")
