from decimal import Decimal

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="DailyReport",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField(unique=True)),
                ("orders", models.PositiveIntegerField(default=0)),
                ("turnover", models.DecimalField(decimal_places=2, default=Decimal("0.00"), max_digits=14)),
                ("imported_orders", models.PositiveIntegerField(default=0)),
                ("imported_turnover", models.DecimalField(decimal_places=2, default=Decimal("0.00"), max_digits=14)),
                ("workflow_run_id", models.CharField(blank=True, max_length=255, verbose_name="workflow run")),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "ordering": ("-day",),
            },
        ),
        migrations.CreateModel(
            name="ImportReport",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("workflow_run_id", models.CharField(max_length=255, unique=True, verbose_name="workflow run")),
                ("file_name", models.CharField(max_length=200)),
                ("rows", models.PositiveIntegerField(default=0)),
                ("rows_done", models.PositiveIntegerField(default=0)),
                ("imported", models.PositiveIntegerField(default=0)),
                ("total", models.DecimalField(decimal_places=2, default=Decimal("0.00"), max_digits=14)),
                ("started_at", models.DateTimeField(auto_now_add=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "ordering": ("-started_at",),
            },
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("email", models.EmailField(max_length=254, verbose_name="customer's email")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("new", "New"),
                            ("reserved", "Stock reserved"),
                            ("paid", "Paid"),
                            ("packed", "Packed"),
                            ("shipped", "Shipped"),
                            ("rejected", "Rejected"),
                            ("failed", "Needs attention"),
                        ],
                        default="new",
                        max_length=10,
                    ),
                ),
                ("total", models.DecimalField(decimal_places=2, max_digits=10)),
                ("note", models.TextField(blank=True, help_text="What went wrong, in words for the shop's staff.")),
                ("workflow_run_id", models.CharField(blank=True, max_length=255, verbose_name="workflow run")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "ordering": ("pk",),
            },
        ),
        migrations.CreateModel(
            name="Product",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("sku", models.CharField(max_length=20, unique=True)),
                ("name", models.CharField(max_length=100)),
                ("price", models.DecimalField(decimal_places=2, max_digits=10)),
                ("stock", models.PositiveIntegerField()),
            ],
            options={
                "ordering": ("sku",),
            },
        ),
        migrations.CreateModel(
            name="ImportedOrder",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("external_id", models.CharField(max_length=40, unique=True)),
                ("placed_on", models.DateField()),
                ("email", models.EmailField(max_length=254)),
                ("product", models.CharField(max_length=100)),
                ("amount", models.DecimalField(decimal_places=2, max_digits=10)),
            ],
            options={
                "ordering": ("external_id",),
                "indexes": [models.Index(fields=["placed_on"], name="shop_imported_day")],
            },
        ),
        migrations.CreateModel(
            name="Invoice",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.CharField(max_length=20, unique=True)),
                ("text", models.TextField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "order",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="invoice", to="shop.order"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="DeliveryNote",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("text", models.TextField()),
                ("workflow_run_id", models.CharField(max_length=255, verbose_name="workflow run")),
                ("written_at", models.DateTimeField(auto_now=True)),
                (
                    "order",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="delivery_note", to="shop.order"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Complaint",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("text", models.TextField()),
                ("workflow_run_id", models.CharField(blank=True, max_length=255, verbose_name="workflow run")),
                ("refunded", models.DecimalField(blank=True, decimal_places=2, max_digits=10, null=True)),
                ("answer", models.TextField(blank=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "order",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="complaints", to="shop.order"
                    ),
                ),
            ],
            options={
                "ordering": ("-created_at",),
            },
        ),
        migrations.CreateModel(
            name="Parcel",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("tracking_number", models.CharField(max_length=20, unique=True)),
                ("pickup_at", models.DateTimeField(verbose_name="picked up")),
                ("callback_url", models.TextField(blank=True, verbose_name="whom the courier tells")),
                ("received_by", models.CharField(blank=True, max_length=100)),
                (
                    "order",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="parcel", to="shop.order"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Payment",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("amount", models.DecimalField(decimal_places=2, max_digits=10)),
                (
                    "state",
                    models.CharField(
                        choices=[("refused", "Refused"), ("paid", "Paid"), ("refunded", "Refunded")],
                        default="refused",
                        max_length=10,
                    ),
                ),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("reference", models.CharField(blank=True, max_length=40)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "order",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="payment", to="shop.order"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="BadRow",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("line", models.PositiveIntegerField()),
                ("reason", models.CharField(max_length=200)),
                ("text", models.TextField()),
                (
                    "report",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="bad_rows", to="shop.importreport"
                    ),
                ),
            ],
            options={
                "ordering": ("report", "line"),
                "constraints": [models.UniqueConstraint(fields=("report", "line"), name="shop_bad_row_once")],
            },
        ),
        migrations.CreateModel(
            name="OrderLine",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("quantity", models.PositiveIntegerField()),
                ("price", models.DecimalField(decimal_places=2, max_digits=10)),
                ("is_reserved", models.BooleanField(default=False, verbose_name="stock reserved")),
                (
                    "order",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="lines", to="shop.order"
                    ),
                ),
                (
                    "product",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="order_lines", to="shop.product"
                    ),
                ),
            ],
            options={
                "ordering": ("order", "product"),
                "constraints": [models.UniqueConstraint(fields=("order", "product"), name="shop_line_once")],
            },
        ),
    ]
