"""Orders while payment fails and instances are killed: none lost, none booked twice. ``make soak`` is the long form."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import soak

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
def test_orders_survive_failing_payments_and_killed_instances() -> None:
    much = ["--orders", "120", "--rate", "15", "--every", "1", "--kills", "3"]
    words = [sys.executable, "-m", "benchmarks.soak", *much, "--json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["orders"] >= 120
    assert (result["answered"], result["complaints"]) == (result["orders"], [])
    # It was no fair weather: a fifth of 120 is 24, and five standard deviations below are 2.
    assert result["payment_failures"] >= 2
    assert result["kills"] >= 3


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """The shop's databases after two orders, a and b."""
    tables: dict[str, tuple[str, list[tuple[str, ...]]]] = {
        "orders": ("orders (key, id)", [("a", "1"), ("b", "2")]),
        "payment": ("charges (key)", [("a",), ("b",)]),
        "inventory": ("reservations (key)", [("a",), ("b",)]),
    }
    for name, (table, rows) in tables.items():
        with sqlite3.connect(tmp_path / f"{name}.db") as connection:
            connection.execute(f"CREATE TABLE {table}")
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table.split()[0]} VALUES ({marks})", rows)
        connection.close()
    change(tmp_path, "inventory", "CREATE TABLE stock (sku, units)")
    change(tmp_path, "inventory", f"INSERT INTO stock VALUES ('kettle', {soak.UNITS - 2})")
    return tmp_path


def change(books: Path, name: str, statement: str) -> None:
    with sqlite3.connect(books / f"{name}.db") as connection:
        connection.execute(statement)
    connection.close()


TOLD = {"a": "1", "b": "2"}


def test_right_books_are_right(books: Path) -> None:
    assert soak.audit(books, TOLD, TOLD.keys()) == []


@pytest.mark.parametrize(
    ("database", "statement", "words"),
    [
        ("orders", "DELETE FROM orders WHERE key = 'b'", "not in the order book"),
        ("orders", "UPDATE orders SET id = '3' WHERE key = 'b'", "not in the order book"),
        ("orders", "INSERT INTO orders VALUES ('b', '3')", "booked twice"),
        ("orders", "INSERT INTO orders VALUES ('c', '3')", "nobody placed"),
        ("payment", "INSERT INTO charges VALUES ('a')", "charged twice"),
        ("payment", "DELETE FROM charges WHERE key = 'a'", "nobody paid for"),
        ("inventory", "UPDATE stock SET units = units - 1", "kettles left the shelf"),
    ],
)
def test_books_that_are_wrong_are_found_out(books: Path, database: str, statement: str, words: str) -> None:
    change(books, database, statement)
    assert any(words in complaint for complaint in soak.audit(books, TOLD, TOLD.keys()))
