"""Publishing from files: reads them, hands them to the use case, and writes an earlier text back where it belongs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gharial.adapters.files import GatewayFiles, load_policy_texts, read_policy_texts
from gharial.adapters.replace_file import replace_file
from gharial.gate.publish import Publisher
from gharial.gate.publishing import PolicyText, Publishing
from gharial.gate.routes import RouteTable
from gharial.model.errors import NotFound, RequestMalformed
from gharial.model.publication import PublicationRecord
from gharial.policy.document import Policy
from gharial.wiring.policy_tools import run_cases


def run_policy_tests(policy: Policy, routes: RouteTable) -> list[str]:
    """Run a policy's own tests; returns a line for each that fails, as `file:line: what`."""
    del routes  # a test builds its own body; only the path parameters that tags name matter
    lines = []
    for result in run_cases(policy):
        if result.passed:
            continue
        wrong = [f"{o.place} was to be {o.wanted} and came {o.came}" for o in result.outcomes if not o.passed]
        lines.append(f"{policy.file}:{result.case.line}: {result.name}: {result.problem or '; '.join(wrong)}")
    return lines


class FilePublications:
    """Implements `adapters.admin.Publications` for the policy files of one gateway; one change at a time.

    A change waits until the one before it is done: a publication takes a moment where the proxy must follow.
    """

    def __init__(self, files: GatewayFiles, publishing: Publishing, publisher: Publisher) -> None:
        self._files = files
        self._publishing = publishing
        self._publisher = publisher
        self._changing = asyncio.Lock()

    async def publish(self, *, force: bool) -> list[str]:
        """See Publications."""
        async with self._changing:
            return await self._publishing.publish(self._texts(), force=force)

    async def try_out(self, files: Sequence[Path], percent: int, routes: frozenset[str]) -> None:
        """See Publications. Raises RequestMalformed for a part that can't be one."""
        async with self._changing:
            try:
                await self._publishing.try_out(read_policy_texts(files, self._files.base), percent, routes)
            except ValueError as error:
                raise RequestMalformed(str(error)) from None

    async def end_canary(self) -> None:
        """See Publications."""
        async with self._changing:
            self._publishing.end_canary()

    async def rollback(self, policy: str, number: int | None, *, force: bool) -> PublicationRecord:
        """See Publications. The file is written only after the earlier text has become active."""
        async with self._changing:
            return await self._roll_back(policy, number, force=force)

    async def _roll_back(self, policy: str, number: int | None, *, force: bool) -> PublicationRecord:
        active = self._publisher.active.policies.get(policy)
        if active is None:
            raise NotFound(f"there is no active policy '{policy}'")
        record = await self._publishing.rollback_text(policy, number)
        texts = [replace(t, text=record.text) if t.file == active.file else t for t in self._texts()]
        await self._publishing.publish(texts, force=force, action="rollback")
        replace_file(self._files.base / active.file, record.text.encode())
        return record

    @property
    def is_changing(self) -> bool:
        """True while something is being published, rolled back or tried out."""
        return self._changing.locked()

    async def history(self) -> Sequence[PublicationRecord]:
        """See Publications."""
        return await self._publishing.history()

    async def remember_start(self, texts: Sequence[PolicyText] | None = None) -> None:
        """Note in the history what the gate started with (None: the files as they are), where that is new."""
        await self._publishing.remember_start(self._texts() if texts is None else texts)

    def _texts(self) -> list[PolicyText]:
        return load_policy_texts(self._files.settings, self._files.base)
