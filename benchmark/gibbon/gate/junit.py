"""The JUnit report of a comparison with a baseline."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from gibbon.core.files import write_atomically
from gibbon.gate.compare import BAD, Comparison
from gibbon.gate.comparison_text import measure_name, sentence


def write_junit(comparison: Comparison, path: Path) -> None:
    """Writes the comparison as a JUnit report: one test a measure; bad verdicts are failures.

    Raises `RunFolderError` if the file can't be written.
    """
    bad = sum(each.verdict in BAD for each in comparison.measures)
    tests = str(len(comparison.measures))
    counts = {"name": "gibbon compare", "tests": tests, "failures": str(bad)}
    counts |= {"errors": "0", "time": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {**counts, "skipped": "0"})
    for each in comparison.measures:
        names = {
            "classname": f"{each.key.dataset}.{each.key.model}",
            "name": measure_name(each.key),
        }
        case = ElementTree.SubElement(suite, "testcase", {**names, "time": "0"})
        reason = sentence(each)
        if each.verdict in BAD:
            failure = {"type": each.verdict, "message": reason}
            ElementTree.SubElement(case, "failure", failure).text = reason
        else:
            ElementTree.SubElement(case, "system-out").text = reason
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    write_atomically(path, text + b"\n")
