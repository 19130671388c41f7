"""The JUnit report of a comparison with a baseline."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from gibbon.core.files import write_atomically
from gibbon.gate.compare import BAD, Compared, Comparison
from gibbon.gate.comparison_text import flag_notes, measure_name, sentence
from gibbon.gate.flag_text import flag_lines, flag_sentence


def write_junit(comparison: Comparison, path: Path) -> None:
    """Writes the comparison as a JUnit report: one test a measure; bad verdicts are failures.

    The flags of the new run, of any severity, are properties of the test suite, and its output.

    Raises `RunFolderError` if the file can't be written.
    """
    bad = sum(each.verdict in BAD for each in comparison.measures)
    tests = str(len(comparison.measures))
    counts = {"name": "gibbon compare", "tests": tests, "failures": str(bad)}
    counts |= {"errors": "0", "time": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {**counts, "skipped": "0"})
    if comparison.flags:
        properties = ElementTree.SubElement(suite, "properties")
        for place, flag in enumerate(comparison.flags):
            value = f"{flag.severity}: {flag_sentence(flag)}"
            entry = {"name": f"flag[{place}]", "value": _printable(value)}
            ElementTree.SubElement(properties, "property", entry)
    for each in comparison.measures:
        names = {
            "classname": _printable(f"{each.key.dataset}.{each.key.model}"),
            "name": _printable(measure_name(each.key)),
        }
        case = ElementTree.SubElement(suite, "testcase", {**names, "time": "0"})
        reason = sentence(each)
        if each.verdict in BAD:
            failure = {"type": each.verdict, "message": _printable(reason)}
            ElementTree.SubElement(case, "failure", failure).text = _with_flags(reason, each)
        else:
            ElementTree.SubElement(case, "system-out").text = _with_flags(reason, each)
    if comparison.flags:
        lines = flag_notes(comparison)
        for severity in ("warning", "note"):
            others = (flag for flag in comparison.flags if flag.severity == severity)
            lines += flag_lines(severity, others)
        text = _printable("\n".join(lines))
        ElementTree.SubElement(suite, "system-out").text = text
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    write_atomically(path, text + b"\n")


def _with_flags(reason: str, each: Compared) -> str:
    """Returns the sentence of a measure and its serious flags, each with advice and suite lines."""
    kinds = {
        "serious flag": each.doubts,
        "serious flag, in both runs": each.known,
        "accepted": each.accepted,
    }
    lines = [reason]
    for words, flags in kinds.items():
        lines += flag_lines(words, flags)
    return _printable("\n".join(lines))


def _printable(text: str) -> str:
    """Returns a text without control characters, surrogates and others that XML can't hold."""
    return "".join(
        each if each in "\t\n" or each.isprintable() else "?" if each >= " " else ""
        for each in text
    )
