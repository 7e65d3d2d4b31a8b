"""Count the injected faults by promise: in the terminal, and with --fault-report in a markdown file.

A test's promise is its docstring, its cases are what it counts (one, where it counts nothing). The counts travel in
the reports of the tests, so that they arrive from the workers of pytest-xdist too.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

HERE = Path(__file__).parent
_SECTIONS = {"`make test`": False, "`make test-long`": True}
_counted = 0


def count(cases: int = 1) -> None:
    """So many faults were injected in the running test, and what it promises held under each."""
    global _counted  # noqa: PLW0603 - one test runs at a time in a process
    _counted += cases


def mostly_slow(cases: Mapping[str, object], *fast: str) -> list[ParameterSet]:
    """The values of ``cases`` as parameters under their names, all slow but those named ``fast``."""
    assert set(fast) <= cases.keys()
    marks = {name: () if name in fast else (pytest.mark.slow,) for name in cases}
    return [pytest.param(value, id=name, marks=marks[name]) for name, value in cases.items()]


@dataclass
class Row:
    """What one test function has shown."""

    topic: str
    promise: str
    long: bool
    cases: int = 0
    failed: int = 0


@dataclass(eq=False)
class Matrix:
    """The rows of one session, by file and function."""

    rows: dict[str, Row] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = dict(report.user_properties)
        if "promise" in told:
            test = report.nodeid.partition("[")[0]
            row = self.rows.setdefault(test, Row(told["topic"], told["promise"], told["long"]))
            row.cases += told.get("cases", 0) if report.when == "call" else 0
            row.failed += report.failed

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        if not self.rows:
            return
        terminalreporter.section("fault matrix: promise | cases | failed")
        for row in self.rows.values():
            terminalreporter.write_line(f"{row.promise} | {row.cases} | {row.failed}")
        total, failed = (sum(getattr(row, part) for row in self.rows.values()) for part in ("cases", "failed"))
        terminalreporter.write_line(f"total | {total} | {failed}")
        if config.option.fault_report:
            page = Path(config.option.fault_report)
            page.write_text(self.on_page(page.read_text() if page.exists() else ""))

    def on_page(self, text: str) -> str:
        """The page with the tables of this session in place of those of the same sections in ``text``."""
        for name, long in _SECTIONS.items():
            if rows := [row for _, row in sorted(self.rows.items()) if row.long is long]:
                begin, end = f"<!-- counted by {name} -->\n", f"<!-- end of {name} -->\n"
                before, _, rest = text.partition(begin)
                text = before + begin + _tables(name, rows) + end + rest.partition(end)[2]
        return text


def _tables(name: str, rows: list[Row]) -> str:
    total, failed = sum(row.cases for row in rows), sum(row.failed for row in rows)
    said = "none failed" if not failed else f"{failed} tests failed"
    lines = [f"## {name}: {total} cases, {said}"]
    for topic in dict.fromkeys(row.topic for row in rows):
        lines += ["", f"**{topic}**", "", "| promise | cases | failed |", "|---|---|---|"]
        lines += [f"| {row.promise} | {row.cases} | {row.failed} |" for row in rows if row.topic == topic]
    return "\n".join(lines) + "\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-report", metavar="FILE", help="write the fault matrix of this session into a page")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Matrix(), "fault-matrix")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test of the matrix that promises nothing does not run."""
    own = [item for item in items if item.path.is_relative_to(HERE)]
    if silent := [item.nodeid for item in own if not _promise(item)]:
        raise pytest.UsageError(f"without a promise, which is its docstring: {', '.join(silent)}")
    for item in own:
        item.user_properties += [
            ("promise", _promise(item)),
            ("topic", _first(item.module.__doc__)),  # type: ignore[attr-defined]
            ("long", item.get_closest_marker("long") is not None),
        ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    global _counted  # noqa: PLW0603
    _counted = 0
    try:
        yield
    finally:
        item.user_properties.append(("cases", _counted or 1))


def _promise(item: pytest.Item) -> str:
    return _first(getattr(getattr(item, "function", None), "__doc__", None))


def _first(text: str | None) -> str:
    """The first paragraph in one line, without its full stop."""
    return " ".join((text or "").split("\n\n")[0].split()).rstrip(".").replace("|", "\\|")
