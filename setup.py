"""Makes the links of the README absolute in the package's description.

In the repository they are relative, so that they work in every checkout, branch and fork.  An index
of packages shows the README alone: there they lead to the repository that pyproject.toml names.
Everything else about the package is in pyproject.toml.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!https?://|#)([^)\s]+)\)")
MARK = re.compile(r"<!-- .*? -->\n*", re.DOTALL)


def description() -> str:
    """Returns the README without its marks, and with absolute links and pictures."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project["urls"]["Repository"]

    def absolute(link: re.Match[str]) -> str:
        picture, text, path = link.groups()
        kind = "raw" if picture else "blob"
        return f"{picture}[{text}]({repository}/{kind}/main/{path})"

    return LINK.sub(absolute, MARK.sub("", (ROOT / "README.md").read_text(encoding="utf-8")))


if __name__ == "__main__":
    setup(long_description=description(), long_description_content_type="text/markdown")
