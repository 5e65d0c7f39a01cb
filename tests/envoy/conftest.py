"""All tests of this folder that talk gRPC in their own process share one event loop per worker."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_asyncio import is_async_test

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put every asynchronous test of this folder on the session's loop.

    grpc keeps one poller for the whole process and wakes each loop that ever used it: an event that comes late for the
    closed loop of an earlier test would be logged as an error in the middle of a later one.
    """
    for item in items:
        if _HERE in item.path.parents and is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
