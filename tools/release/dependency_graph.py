"""Completes a software bill of materials by the dependencies among its packages.

``python -m tools.release.dependency_graph dist/sbom.cdx.json`` adds to CycloneDX's JSON which
package needs which, as the installed packages declare it: without it a reader of the bill can't
tell why a package is in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from tools.release.runtime_requirements import PACKAGE, needed_packages


def with_dependencies(bill: dict[str, Any], *, package: str = PACKAGE) -> dict[str, Any]:
    """Returns a bill of materials in which each component names those that it needs.

    Args:
        bill: decoded JSON of CycloneDX, of whose components each is installed here.
        package: the package that the bill is of.
    """
    names = {str(canonicalize_name(each["name"])): each["bom-ref"] for each in bill["components"]}
    own = bill["metadata"]["component"]["bom-ref"]
    needs = needed_packages(package)
    graph = {own: needs[canonicalize_name(package)]}
    graph |= {reference: needs[name] for name, reference in names.items()}
    return {
        **bill,
        "dependencies": [
            {"ref": reference, "dependsOn": sorted(names[each] for each in needed)}
            for reference, needed in sorted(graph.items())
        ],
    }


def main() -> int:
    """Completes a file; returns the exit code."""
    path = Path(sys.argv[1])
    bill = with_dependencies(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
