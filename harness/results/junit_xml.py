"""Write the outcome of a gate as JUnit XML for continuous-integration systems: one suite with one test case."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from harness.core.files import write_atomically
from harness.stats.gate import Gate

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, case: str, verdict: Gate | None, message: str) -> None:
    """Write the outcome of a gate as a JUnit XML file.

    FAIL becomes a failure, INCONCLUSIVE and None an error: none of them lets a build pass.

    Args:
        case: the name of the test case.
        verdict: None for a gate that could not be computed.
        message: the reason for the verdict.

    Raises:
        RunError: the file cannot be written.
    """
    failed, undecided = verdict is Gate.FAIL, verdict in (None, Gate.INCONCLUSIVE)
    counts = {"tests": "1", "failures": str(int(failed)), "errors": str(int(undecided)), "skipped": "0"}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "bench gate", **counts})
    element = ElementTree.SubElement(suite, "testcase", {"classname": "bench.gate", "name": _clean(case)})
    text = _clean(message)
    if failed or undecided:
        kind = "error" if verdict is None else verdict.name.lower()
        outcome = ElementTree.SubElement(element, "failure" if failed else "error", {"message": text, "type": kind})
        outcome.text = text
    else:
        ElementTree.SubElement(element, "system-out").text = text
    ElementTree.indent(suites)
    write_atomically(path, ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n")


def _clean(text: str) -> str:
    """Return the text with the characters that XML cannot hold replaced."""
    return _NOT_XML.sub("�", text)
