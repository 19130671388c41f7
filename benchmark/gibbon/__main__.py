"""``python -m gibbon`` is ``gibbon``."""

from __future__ import annotations

from gibbon.cli.app import main

main()
