"""One publication of a policy, as the history keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PublicationRecord:
    """What was made active when, and how. `forced`: although its tests failed.

    `action`: start, publish, rollback, or withdraw: what was published just before did not become active after all.

    `number` counts publications of all policies of a gateway from 1; 0 before it is stored. `digest` is the SHA-256
    (hex) of `text`, the policy file as it was.
    """

    policy: str
    version: int
    action: str
    at_s: float
    digest: str
    text: str = field(repr=False)
    forced: bool = False
    failed_tests: int = 0
    number: int = 0
