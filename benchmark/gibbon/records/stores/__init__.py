"""Stores of runs: a folder on a disk, or the URL of a remote store.

A run is computed, read and reported in a folder.  That of a `LocalStore` is the folder itself.  A
`RemoteStore` has a working copy on the local disk, whose files are sent to the store as they are
completed.
"""

from __future__ import annotations

from gibbon.records.stores.local import LocalStore
from gibbon.records.stores.open_store import is_url, open_store
from gibbon.records.stores.store import Store

__all__ = ["LocalStore", "Store", "is_url", "open_store"]
