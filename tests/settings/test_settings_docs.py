"""The settings page is held to the settings."""

from __future__ import annotations

import re
from pathlib import Path

from gharial.settings import setting_keys

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_every_setting_has_a_heading():
    """Each key of gharial.yaml has a heading in docs/configuration.md, and no heading is of a key that is not there."""
    headings = set(re.findall(r"^#{2,4} `([a-z_A-Z0-9.]+)`", PAGE.read_text(), re.MULTILINE))
    assert headings == {key for key, _ in setting_keys()}
