"""Draws what thieves took over time, one line per scenario, as SVG: plain shapes, no script, no outside reference."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

_WIDTH, _ROW, _LEFT, _TOP = 900, 56, 150, 40


class Timeline(Protocol):
    """What is drawn."""

    scenario: str
    days: float
    exposed: int
    timeline: list[tuple[float, int]]


def draw(results: Sequence[Timeline]) -> str:
    """Return an SVG: a row per scenario, time from left to right, and at each alarm how many people were taken."""
    shown = [result for result in results if len(result.timeline) > 1 or result.exposed]
    height = _TOP + _ROW * len(shown) + 20
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-size="12">'
    parts = [head, '<text x="10" y="20">People taken by a thief, and when he was noticed</text>']
    for number, result in enumerate(shown):
        y = _TOP + _ROW * number + 24
        length = _WIDTH - _LEFT - 90
        parts.append(f'<text x="10" y="{y + 4}">{escape(result.scenario)}</text>')
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + length}" y2="{y}" stroke="#999"/>')
        for at_s, people in result.timeline[:-1][:50]:
            x = _LEFT + length * at_s / (result.days * 86_400)
            parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="#b00"/>')
            parts.append(f'<text x="{x:.1f}" y="{y - 8}" fill="#b00">{people:,}</text>')
        parts.append(f'<text x="{_LEFT + length + 8}" y="{y + 4}">{result.exposed:,}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
