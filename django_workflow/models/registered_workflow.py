"""A workflow, as the admin lists them: a name that code registers or that runs have."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from django_workflow.models.run import Run


class RegisteredWorkflow(Run):
    """Has no rows of its own: it gives the admin's page of workflows its place and name, for all who may see runs."""

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("workflow")
        verbose_name_plural = _("workflows")
