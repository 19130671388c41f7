"""What results are filed under."""

from __future__ import annotations

import hashlib
import json

DIGEST_FORMAT = 1  # goes up when the meaning of a stored outcome changes


def digest_of(**parts: object) -> str:
    """Returns a digest of named parts, each of them something that JSON can hold."""
    text = json.dumps({"format": DIGEST_FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
