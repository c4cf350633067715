"""A failure of a random order can be repeated from what is told of it."""

from __future__ import annotations

from tests.support.course import Course


def test_the_files_of_the_worker_that_failed_are_told_in_their_order() -> None:
    course = Course()
    for worker, nodeid, failed in [
        ("gw0", "tests/b.py::test_one", False),
        ("gw1", "tests/c.py::test_one", False),
        ("gw0", "tests/b.py::test_two", False),
        ("gw0", "tests/a.py::test_one[x::y]", True),
        ("gw0", "tests/d.py::test_one", True),
    ]:
        course.note(worker, nodeid, failed=failed)
    assert list(course.tell(7)) == [
        "tests/a.py::test_one[x::y] failed at gw0 after what this command runs once more:",
        "  .venv/bin/python -m pytest --numprocesses 0 --randomly-seed=7 --files-in-order tests/b.py tests/a.py",
        "  beside it gw1 had just finished tests/c.py::test_one",
    ]


def test_where_nothing_failed_nothing_is_told() -> None:
    course = Course()
    course.note("gw0", "tests/b.py::test_one", failed=False)
    assert list(course.tell(7)) == []
