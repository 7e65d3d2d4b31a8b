"""JUnit XML, which continuous-integration systems read: one test suite with one case."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from harness.core.files import write_atomically
from harness.stats.gate import Gate

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, case: str, verdict: Gate | None, message: str) -> None:
    """Write the outcome of a gate.

    FAIL is a failure. INCONCLUSIVE, and None for a gate that could not be computed, are errors: neither lets a
    build pass.

    Raises:
        RunError: the file cannot be written.
    """
    failed, wrong = verdict is Gate.FAIL, verdict in (None, Gate.INCONCLUSIVE)
    counts = {"tests": "1", "failures": str(int(failed)), "errors": str(int(wrong)), "skipped": "0"}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "bench gate", **counts})
    element = ElementTree.SubElement(suite, "testcase", {"classname": "bench.gate", "name": _clean(case)})
    told = _clean(message)
    if failed or wrong:
        kind = "error" if verdict is None else verdict.name.lower()
        outcome = ElementTree.SubElement(element, "failure" if failed else "error", {"message": told, "type": kind})
        outcome.text = told
    else:
        ElementTree.SubElement(element, "system-out").text = told
    ElementTree.indent(suites)
    write_atomically(path, ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n")


def _clean(text: str) -> str:
    """A text without the characters that XML cannot hold."""
    return _NOT_XML.sub("�", text)
