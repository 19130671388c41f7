from __future__ import annotations

import pytest
from made_up import made_up_record

from gibbon.records.run import RunRecord


@pytest.fixture(scope="session")
def record() -> RunRecord:
    """A made-up run that holds every case a report must cope with."""
    return made_up_record()
