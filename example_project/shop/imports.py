"""Reading the shop's CSV file and writing its orders: the steps of `workflows.import_orders`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db.models import F, Sum
from django.utils import timezone

from example_project.shop.models import BadRow, ImportedOrder, ImportReport

DATA_FOLDER = Path(__file__).parent / "data"
COLUMNS = ["external_id", "placed_on", "email", "product", "amount"]
CHUNK = 250


@dataclass(frozen=True, slots=True)
class Row:
    line: int
    external_id: str
    placed_on: date
    email: str
    product: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Rejected:
    line: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The file as the first step found it: `chunks` are pairs of first row and row behind the last, from 0."""

    report_id: int
    rows: int
    chunks: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Imported:
    rows: int
    imported: int
    bad: int
    total: Decimal


def read(lines: Iterator[str]) -> Iterator[Row | Rejected]:
    """Each row of a CSV file, or what is wrong with it. Raises ValueError when the columns are not ours.

    Of two rows with one id the first counts. That takes the whole file, so a chunk reads all of it and keeps its part:
    the outcome then depends on neither the order nor the number of chunks.
    """
    reader = csv.reader(lines)
    header = next(reader, [])
    if header != COLUMNS:
        raise ValueError(f"The file's columns are {', '.join(header) or 'missing'}; expected {', '.join(COLUMNS)}.")
    first_lines: dict[str, int] = {}
    for values in reader:
        try:
            row = _row(reader.line_num, values)
            first = first_lines.setdefault(row.external_id, row.line)
            if first != row.line:
                raise ValueError(f"the id {row.external_id} is in line {first} already")
            yield row
        except ValueError as error:
            yield Rejected(line=reader.line_num, reason=str(error), text=",".join(values))


def _row(line: int, values: Sequence[str]) -> Row:
    """Raises ValueError with the reason that the report shows."""
    if len(values) != len(COLUMNS):
        raise ValueError(f"{len(values)} values instead of {len(COLUMNS)}")
    external_id, placed_on, email, product, amount = (value.strip() for value in values)
    if not external_id:
        raise ValueError("the id is missing")
    if not email:
        raise ValueError("the email is missing")
    try:
        validate_email(email)
    except ValidationError:
        raise ValueError(f"{email!r} is not an email address") from None
    try:
        day = date.fromisoformat(placed_on)
    except ValueError:
        raise ValueError(f"{placed_on!r} is not a date (year-month-day)") from None
    try:
        value = Decimal(amount)
    except InvalidOperation:
        raise ValueError(f"{amount!r} is not an amount") from None
    if not value.is_finite() or value <= 0:
        raise ValueError(f"the amount {amount} is not above zero")
    return Row(line=line, external_id=external_id, placed_on=day, email=email, product=product, amount=value)


def read_file(file_name: str) -> list[Row | Rejected]:
    with (DATA_FOLDER / Path(file_name).name).open(encoding="utf-8", newline="") as lines:
        return list(read(lines))


def open_file(file_name: str, run_id: str) -> Opened:
    """The first step: makes the report, plans the chunks."""
    rows = len(read_file(file_name))
    report, _ = ImportReport.objects.update_or_create(
        workflow_run_id=run_id, defaults={"file_name": file_name, "rows": rows}
    )
    chunks = [(start, min(start + CHUNK, rows)) for start in range(0, rows, CHUNK)]
    return Opened(report_id=report.pk, rows=rows, chunks=chunks)


def import_chunk(file_name: str, report_id: int, start: int, end: int) -> int:
    """Write one chunk and count it; how many rows of the file are done by now.

    Run as an atomic step, so that its rows and its count are written once, together with its result. The id of the
    shop that sent the file makes an order unique: importing the file again changes the orders, it adds none.
    """
    chunk = read_file(file_name)[start:end]
    good = [row for row in chunk if isinstance(row, Row)]
    ImportedOrder.objects.bulk_create(
        [
            ImportedOrder(
                external_id=row.external_id,
                placed_on=row.placed_on,
                email=row.email,
                product=row.product,
                amount=row.amount,
            )
            for row in good
        ],
        update_conflicts=True,
        unique_fields=["external_id"],
        update_fields=["placed_on", "email", "product", "amount"],
    )
    BadRow.objects.bulk_create(
        [
            BadRow(report_id=report_id, line=row.line, reason=row.reason, text=row.text)
            for row in chunk
            if isinstance(row, Rejected)
        ],
        ignore_conflicts=True,
    )
    ImportReport.objects.filter(pk=report_id).update(
        rows_done=F("rows_done") + len(chunk),
        imported=F("imported") + len(good),
        total=F("total") + sum((row.amount for row in good), Decimal("0.00")),
    )
    return ImportReport.objects.values_list("rows_done", flat=True).get(pk=report_id)


def finish(report_id: int) -> Imported:
    """The last step: closes the report and compares it with the rows that are really there."""
    report = ImportReport.objects.get(pk=report_id)
    bad = report.bad_rows.count()
    if report.imported + bad != report.rows:
        raise ValueError(f"{report.rows} rows came in, but {report.imported} imported and {bad} bad ones are recorded.")
    report.finished_at = timezone.now()
    report.save(update_fields=["finished_at"])
    return Imported(rows=report.rows, imported=report.imported, bad=bad, total=report.total)


def totals(day: date) -> tuple[int, Decimal]:
    """How many imported orders were placed on that day, and their sum."""
    orders = ImportedOrder.objects.filter(placed_on=day)
    return orders.count(), orders.aggregate(total=Sum("amount"))["total"] or Decimal("0.00")
