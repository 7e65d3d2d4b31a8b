"""Count the injected faults by promise, and print them as a table or, with --fault-report, write them into a page.

The promise of a test is the first paragraph of its docstring. A test counts its cases with `count_cases`; without a
call it counts as one. The counts are sent in the reports of the tests, which also works with pytest-xdist.
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


def count_cases(cases: int = 1) -> None:
    """Record that the running test injected this many faults and its promise held under each."""
    global _counted  # noqa: PLW0603 - one test runs at a time in a process
    _counted += cases


def mostly_slow(cases: Mapping[str, object], *fast: str) -> list[ParameterSet]:
    """Return ``cases`` as parameters with their names as ids. All are marked slow except those in ``fast``."""
    assert set(fast) <= cases.keys()
    marks = {name: () if name in fast else (pytest.mark.slow,) for name in cases}
    return [pytest.param(value, id=name, marks=marks[name]) for name, value in cases.items()]


@dataclass
class Row:
    """The counts of one test function."""

    topic: str
    promise: str
    long: bool
    cases: int = 0
    failed: int = 0


@dataclass(eq=False)
class Matrix:
    """The rows of one test session, by file and function."""

    rows: dict[str, Row] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        if "promise" in properties:
            test = report.nodeid.partition("[")[0]
            row = self.rows.setdefault(test, Row(properties["topic"], properties["promise"], properties["long"]))
            row.cases += properties.get("cases", 0) if report.when == "call" else 0
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
            page.write_text(self.update_page(page.read_text() if page.exists() else ""))

    def update_page(self, text: str) -> str:
        """Return a page with its sections replaced by the tables of this session."""
        for name, long in _SECTIONS.items():
            if rows := [row for _, row in sorted(self.rows.items()) if row.long is long]:
                begin, end = f"<!-- counted by {name} -->\n", f"<!-- end of {name} -->\n"
                before, _, rest = text.partition(begin)
                text = before + begin + _tables(name, rows) + end + rest.partition(end)[2]
        return text


def _tables(name: str, rows: list[Row]) -> str:
    total, failed = sum(row.cases for row in rows), sum(row.failed for row in rows)
    result = "none failed" if not failed else f"{failed} tests failed"
    lines = [f"## {name}: {total} cases, {result}"]
    for topic in dict.fromkeys(row.topic for row in rows):
        lines += ["", f"**{topic}**", "", "| promise | cases | failed |", "|---|---|---|"]
        lines += [f"| {row.promise} | {row.cases} | {row.failed} |" for row in rows if row.topic == topic]
    return "\n".join(lines) + "\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-report", metavar="FILE", help="write the fault matrix of this session into a page")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Matrix(), "fault-matrix")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse fault tests without a docstring, and attach promise and topic to the others."""
    fault_tests = [item for item in items if item.path.is_relative_to(HERE)]
    if undocumented := [item.nodeid for item in fault_tests if not _promise(item)]:
        raise pytest.UsageError(f"a fault test needs a docstring, which states its promise: {', '.join(undocumented)}")
    for item in fault_tests:
        item.user_properties += [
            ("promise", _promise(item)),
            ("topic", _first_paragraph(item.module.__doc__)),  # type: ignore[attr-defined]
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
    return _first_paragraph(getattr(getattr(item, "function", None), "__doc__", None))


def _first_paragraph(text: str | None) -> str:
    """Return the first paragraph as one line without its full stop, escaped for a markdown table."""
    return " ".join((text or "").split("\n\n")[0].split()).rstrip(".").replace("|", "\\|")
