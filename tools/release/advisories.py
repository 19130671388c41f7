"""Looks the exact versions up in the database of known vulnerabilities, by pip-audit.

``python -m tools.release.advisories PIP-AUDIT constraints.txt [OPTIONS]`` prints what is known of
them.  Exit codes: 0 nothing is known of any of them; 1 a vulnerability is known; 2 the look-up
failed, such as without a network: then nothing has been shown.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

NONE_KNOWN, KNOWN, NOT_LOOKED_UP = 0, 1, 2
OPTIONS = ("--strict", "--no-deps", "--disable-pip", "--progress-spinner", "off")


def report(found: Any) -> list[str]:
    """Returns a line for each vulnerability in pip-audit's JSON.

    >>> known = {"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": ["CVE-1"]}
    >>> report({"dependencies": [{"name": "a", "version": "1.0", "vulns": [known]}]})
    ['a 1.0: PYSEC-1 (CVE-1), mended in 1.1']
    """
    lines = []
    for package in found["dependencies"]:
        for each in package.get("vulns", ()):
            aliases, versions = each.get("aliases"), each["fix_versions"]
            also = f" ({', '.join(aliases)})" if aliases else ""
            mended = f"mended in {', '.join(versions)}" if versions else "not mended"
            lines.append(f"{package['name']} {package['version']}: {each['id']}{also}, {mended}")
    return lines


def failure(said: str, requirements: str) -> str:
    """Returns the sentence for a look-up that failed, with the last thing that pip-audit said."""
    lines = [line for line in said.splitlines() if line.strip()]
    reason = (
        lines[-1].rpartition("ERROR:")[2].removeprefix("pip_audit._cli:")
        if lines
        else "it said nothing"
    )
    return (
        f"error: the advisories for {requirements} were not looked up, so nothing is known of "
        "these versions: the service that pip-audit asks can't be reached from here, or does not "
        f"know one of them; repeat this with a network ({reason})"
    )


def main(words: Sequence[str] | None = None) -> int:
    """Looks the versions of a file up; returns the exit code."""
    audit, requirements, *options = sys.argv[1:] if words is None else words
    command = [audit, *OPTIONS, "--format", "json", "--requirement", requirements, *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        found = json.loads(done.stdout)
        lines = report(found)
    except OSError as error:
        sys.stderr.write(failure(str(error), requirements) + "\n")
        return NOT_LOOKED_UP
    except (ValueError, LookupError, TypeError):
        sys.stderr.write(failure(done.stderr, requirements) + "\n")
        return NOT_LOOKED_UP
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    count = len(found["dependencies"])
    sys.stdout.write(f"{count} packages were looked up; {len(lines) or 'no'} advisories\n")
    return KNOWN if lines else NONE_KNOWN


if __name__ == "__main__":
    sys.exit(main())
