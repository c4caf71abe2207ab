"""`manage.py load_demo`: what the demo needs to start with. A second run changes nothing.

`manage.py load_demo --runs 10000` adds that many runs in every state as well, for pages with much on them.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandParser
from django.core.management.color import no_style
from django.db import connection, transaction
from django.utils import timezone

from example_project.shop.data.history import write_runs
from example_project.shop.models import Order, OrderLine, Product

PRODUCTS = [
    # sku, name, price, stock
    ("CHAIR", "Office chair", "249.00", 40),
    ("DESK", "Standing desk", "600.00", 60),
    ("LAMP", "Desk lamp", "49.00", 200),
    ("MONITOR", "Monitor", "300.00", 80),
    ("NOTEBOOK", "Notebook", "7.90", 1000),
    ("PIANO", "Grand piano", "8900.00", 1),
]

ORDERS: list[tuple[int, str, dict[str, int]]] = [
    (1, "ada@example.com", {"DESK": 2, "MONITOR": 1}),  # 1,500.00: needs approval
    (2, "grace@example.com", {"LAMP": 1, "NOTEBOOK": 2}),  # 64.80: goes straight through
    (3, "ludwig@example.com", {"PIANO": 3}),  # more than there is in stock: fails
    (4, "alan@example.com", {"CHAIR": 1, "LAMP": 2}),
    (5, "hedy@example.com", {"DESK": 5, "MONITOR": 5, "NOTEBOOK": 10}),
    (6, "edsger@example.com", {"NOTEBOOK": 50}),
]


class Command(BaseCommand):
    help = "Load the demo's products, orders and the user admin/admin. Running it again keeps what is there."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--runs", type=int, default=0, help="Add this many runs of the last month, in every state.")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        users = get_user_model().objects
        if not users.filter(username="admin").exists():
            users.create_superuser("admin", "admin@example.com", "admin")
        for sku, name, price, stock in PRODUCTS:
            Product.objects.get_or_create(sku=sku, defaults={"name": name, "price": price, "stock": stock})
        made = sum(self._load_order(*order) for order in ORDERS)
        # The numbers above were given by hand: the database goes on behind them.
        with connection.cursor() as cursor:
            for statement in connection.ops.sequence_reset_sql(no_style(), [Order]):
                cursor.execute(statement)
        products, orders = Product.objects.count(), Order.objects.count()
        self.stdout.write(f"The demo has {products} products and {orders} orders ({made} new).")
        if options["runs"] > 0:
            rows = write_runs(options["runs"], timezone.now(), users.filter(username="admin").first())
            self.stdout.write("Added " + ", ".join(f"{number} {name}" for name, number in rows.items()) + ".")

    def _load_order(self, pk: int, email: str, quantities: dict[str, int]) -> bool:
        products = Product.objects.in_bulk(quantities, field_name="sku")
        total = sum((products[sku].price * quantity for sku, quantity in quantities.items()), Decimal("0.00"))
        order, is_new = Order.objects.get_or_create(pk=pk, defaults={"email": email, "total": total})
        if is_new:
            OrderLine.objects.bulk_create(
                OrderLine(order=order, product=products[sku], quantity=quantity, price=products[sku].price)
                for sku, quantity in quantities.items()
            )
        return is_new
