"""Writes orders.csv: the same 2,500 rows each time, ten of them bad on purpose.

python -m example_project.shop.data.generate
"""

from __future__ import annotations

import csv
import io
import random
from datetime import date, timedelta
from pathlib import Path

PATH = Path(__file__).with_name("orders.csv")
ROWS = 2500
FIRST_DAY = date(2025, 1, 1)
PRODUCTS = (
    # name, price in cents
    ("Desk lamp", 4900),
    ("Office chair", 24900),
    ("Standing desk", 60000),
    ("Notebook", 790),
    ("Monitor", 30000),
)
NAMES = ("ada", "alan", "barbara", "claude", "donald", "edsger", "frances", "grace", "hedy", "john", "karen")


def rows() -> list[list[str]]:
    chance = random.Random(2025)
    made = []
    for number in range(1, ROWS + 1):
        product, cents = chance.choice(PRODUCTS)
        cents *= chance.randint(1, 4)
        day = FIRST_DAY + timedelta(days=chance.randrange(365))
        email = f"{chance.choice(NAMES)}.{chance.randrange(1000):03}@example.com"
        made.append([f"WEB-{number:05}", day.isoformat(), email, product, f"{cents // 100}.{cents % 100:02}"])
    return spoil(made)


def spoil(made: list[list[str]]) -> list[list[str]]:
    """Ten bad rows, far apart: the reader has to name each by its line."""
    identifier, day, email, _product, amount = range(5)
    made[16][email] = ""
    made[250][amount] = "-49.00"
    made[511][day] = "2025-02-30"
    made[777][identifier] = made[40][identifier]
    made[1023][email] = "not an address"
    made[1290][amount] = "12,50 EUR"
    made[1500][day] = "31/12/2025"
    made[1888][identifier] = made[1200][identifier]
    made[2222][amount] = "-7.90"
    made[2400][email] = ""
    return made


def text() -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["external_id", "placed_on", "email", "product", "amount"])
    writer.writerows(rows())
    return buffer.getvalue()


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8", newline="")
