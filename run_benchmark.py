"""The door in a checkout: hands over to `gibbon.cli.app`, whatever else is installed."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT / "benchmark"), str(ROOT / "model_zoo")]

from gibbon.cli.app import main  # noqa: E402  # found through the two folders above

if __name__ == "__main__":
    main()
