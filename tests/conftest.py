"""Options of the whole suite, its order, and how a failure in that order is repeated."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import hypothesis.core
import pytest
from hypothesis import HealthCheck, settings
from tests.support.course import Course

# How long an example takes, and how long it takes to make one, says how busy the machine is.
settings.register_profile("meshctl", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("meshctl")

_course = Course()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        default=False,
        help="write what golden tests found into their files, and delete files that are stale",
    )
    parser.addoption(
        "--files-in-order",
        action="store_true",
        default=False,
        help="run files in the order in which they are given; within each the seed decides",
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update-golden"))


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let one seed decide the examples of Hypothesis too, unless they have one of their own."""
    seed = _seed_of(config)
    if seed is not None and hypothesis.core.global_force_seed is None:
        hypothesis.core.global_force_seed = seed  # type: ignore[assignment] # what --hypothesis-seed sets


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Tell the seed, also where little is told."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    seed = _seed_of(session.config)
    if reporter is not None and seed is not None and not _is_worker(session.config):
        reporter.write_line(f"random order: --randomly-seed={seed}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put files in order; those of tests within each stay as the seed has them."""
    if config.getoption("--files-in-order"):
        given = {str(Path(word.partition("::")[0]).resolve()): place for place, word in enumerate(config.args)}
        items.sort(key=lambda item: given.get(str(item.path), len(given)))
    elif _is_worker(config):
        # What takes long goes first, so that no worker is left alone with it at the end.
        real = defaultdict[Path, list[bool]](list)
        for item in items:
            real[item.path].append(item.get_closest_marker("e2e") is not None)
        items.sort(key=lambda item: not all(real[item.path]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note who ran what."""
    _course.note(getattr(report, "worker_id", "this process"), report.nodeid, failed=report.failed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell how what failed is repeated."""
    seed = _seed_of(config)
    if seed is not None:
        for line in _course.tell(seed):
            terminalreporter.write_line(line)


def _seed_of(config: pytest.Config) -> int | None:
    seed = getattr(config.option, "randomly_seed", None)
    return seed if isinstance(seed, int) else None


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
