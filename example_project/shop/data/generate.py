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

IDENTIFIER, DAY, EMAIL, _PRODUCT, AMOUNT = range(5)
# Far apart, so that several chunks have some: row (from 0) -> column and bad value.
SPOILED = {
    16: (EMAIL, ""),
    250: (AMOUNT, "-49.00"),
    511: (DAY, "2025-02-30"),
    777: (IDENTIFIER, "WEB-00041"),
    1023: (EMAIL, "not an address"),
    1290: (AMOUNT, "12,50 EUR"),
    1500: (DAY, "31/12/2025"),
    1888: (IDENTIFIER, "WEB-01201"),
    2222: (AMOUNT, "-7.90"),
    2400: (EMAIL, ""),
}


def rows() -> list[list[str]]:
    chance = random.Random(2025)
    made = []
    for number in range(1, ROWS + 1):
        product, cents = chance.choice(PRODUCTS)
        cents *= chance.randint(1, 4)
        day = FIRST_DAY + timedelta(days=chance.randrange(365))
        email = f"{chance.choice(NAMES)}.{chance.randrange(1000):03}@example.com"
        made.append([f"WEB-{number:05}", day.isoformat(), email, product, f"{cents // 100}.{cents % 100:02}"])
    for row, (column, value) in SPOILED.items():
        made[row][column] = value
    return made


def text() -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["external_id", "placed_on", "email", "product", "amount"])
    writer.writerows(rows())
    return buffer.getvalue()


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8", newline="")
