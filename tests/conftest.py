"""Options that all tests share."""

from __future__ import annotations

import hypothesis
import pytest
from support.effort import examples

# Loaded machines are slow at times; that says nothing about a property. What has to be fast is told by `bench/`.
hypothesis.settings.register_profile(
    "gharial",
    # The library's own choice: where CI is set, the same examples at every run.
    parent=hypothesis.settings.get_profile(hypothesis.settings.get_current_profile_name()),
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("gharial")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files anew from what the code does; read the diff"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """True where golden files are to be written instead of compared."""
    return bool(request.config.getoption("--update-golden"))
