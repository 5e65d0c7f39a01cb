"""The pages about commands are held to the commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from gharial.cli import main

DOCS = Path(__file__).parents[2] / "docs"


def commands(group: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if group.hidden:
        return
    yield name, group
    if isinstance(group, click.Group):
        for inner, command in group.commands.items():
            yield from commands(command, f"{name} {inner}")


def test_every_command_has_a_heading():
    """Each command has one heading somewhere in docs/, and no heading is of a command that is not there."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md")))
    headings = re.findall(r"^#{2,4} `(gharial [a-z -]+)`$", text, re.MULTILINE)
    assert sorted(headings) == sorted(name for name, _ in commands(main, "gharial") if name != "gharial")


def test_every_command_and_option_explains_itself():
    """`--help` says what each command and option is for."""
    for name, command in commands(main, "gharial"):
        assert command.help, name
        for param in command.params:
            assert isinstance(param, click.Argument) or param.help, f"{name} {param.name}"
