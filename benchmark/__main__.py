"""``python -m benchmark`` is ``gibbon``."""

from benchmark.cli import main

main()
