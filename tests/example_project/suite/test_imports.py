from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from example_project.shop.data import generate
from example_project.shop.imports import Rejected, Row, read, read_file

HEADER = "external_id,placed_on,email,product,amount"


def read_rows(*rows: str) -> list[Row | Rejected]:
    return list(read(iter([HEADER, *rows])))


def test_a_good_row_has_its_values_in_their_types() -> None:
    assert read_rows("A-1,2025-03-01,ada@example.com,Desk lamp,49.00") == [
        Row(
            line=2,
            external_id="A-1",
            placed_on=date(2025, 3, 1),
            email="ada@example.com",
            product="Desk lamp",
            amount=Decimal("49.00"),
        )
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("A-1,2025-03-01,,Desk lamp,49.00", "the email is missing"),
        ("A-1,2025-03-01,ada,Desk lamp,49.00", "'ada' is not an email address"),
        ("A-1,2025-02-30,ada@example.com,Desk lamp,49.00", "'2025-02-30' is not a date"),
        ("A-1,2025-03-01,ada@example.com,Desk lamp,-1", "the amount -1 is not above zero"),
        ("A-1,2025-03-01,ada@example.com,Desk lamp,NaN", "the amount NaN is not above zero"),
        ("A-1,2025-03-01,ada@example.com,Desk lamp,x", "'x' is not an amount"),
        (",2025-03-01,ada@example.com,Desk lamp,49.00", "the id is missing"),
        ("A-1,2025-03-01", "2 values instead of 5"),
    ],
)
def test_a_bad_row_is_reported_with_line_reason_and_text(row: str, reason: str) -> None:
    [rejected] = read_rows(row)
    assert isinstance(rejected, Rejected)
    assert rejected.line == 2
    assert reason in rejected.reason
    assert rejected.text == row


def test_of_two_rows_with_one_id_the_first_counts() -> None:
    row = "A-1,2025-03-01,ada@example.com,Desk lamp,49.00"
    first, second = read_rows(row, row)
    assert isinstance(first, Row)
    assert isinstance(second, Rejected)
    assert "line 2 already" in second.reason


def test_other_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="columns are id, mail"):
        list(read(iter(["id,mail"])))


def test_the_demos_file_has_2500_rows_of_which_ten_are_bad() -> None:
    rows = read_file("orders.csv")
    assert len(rows) == 2500
    # The header is line 1, and the generator counts from 0.
    assert [row.line - 2 for row in rows if isinstance(row, Rejected)] == list(generate.SPOILED)


def test_the_demos_file_is_what_its_generator_writes() -> None:
    assert generate.PATH.read_text(encoding="utf-8") == generate.text()
