"""`gharial.load(…).protect(…)`: the same gate inside a Python program, and as closed."""

from __future__ import annotations

import asyncio
import collections
import decimal
import doctest
import enum
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.embedded import audit_of, write_home
from support.gateway import MARK, PLANTED, POLICY, customer, customer_id, people_in_clear

import gharial
import gharial.gate.vouch
from gharial.adapters.memory import MemoryAudit, MemoryStore
from gharial.gate.direct import protect_document
from gharial.gate.exchange import GateExchange
from gharial.model.errors import (
    AuditUnwritable,
    CallerInvalid,
    ConfigInvalid,
    DataUnfit,
    GateUnavailable,
    GharialError,
    KeyFileUnusable,
    NoRoute,
    PolicyInvalid,
    RouteUnfit,
    StoreInUse,
)

CLERK = gharial.Caller(client="crm", user="ada", roles=["care"], purpose="support")
NOBODY = gharial.Caller()


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return file


@pytest.fixture
def gate(policy_file: Path) -> Iterator[gharial.Gharial]:
    with gharial.load(policy_file, ephemeral=True) as gate:
        yield gate


# --- what comes back --------------------------------------------------------------------------------------------------


def test_each_kind_of_data_comes_back_as_its_own_kind(gate: gharial.Gharial):
    """Bytes give bytes, str gives str, dict and list give Python's values; all three say the same."""
    record = customer(7)
    shown = gate.protect(record, caller=CLERK)
    text = json.dumps(record)
    as_text = gate.protect(text, caller=CLERK)
    as_bytes = gate.protect(text.encode(), caller=CLERK)
    assert (type(shown), type(as_text), type(as_bytes)) == (dict, str, bytes)
    assert json.loads(as_text) == json.loads(as_bytes) == shown
    assert shown["fullName"] == record["fullName"]
    assert shown["dob"] == "1979"
    assert "note" not in shown
    assert gate.protect([record], caller=CLERK) == [shown]


def test_who_may_see_nothing_is_shown_nothing(gate: gharial.Gharial):
    """A caller that nobody grants anything gets no planted value, in any of the forms."""
    record = customer(7)
    for data in (record, [record, record], json.dumps(record), json.dumps(record).encode()):
        shown: Any = gate.protect(data, caller=NOBODY)  # type: ignore[call-overload]
        text = shown if isinstance(shown, bytes) else json.dumps(shown).encode()
        assert not any(needle in text for needle in PLANTED)


def test_data_is_not_changed_in_place(gate: gharial.Gharial):
    """What was handed over stays as it was."""
    record = customer(7)
    gate.protect(record, caller=NOBODY)
    assert record == customer(7)


def test_numbers_and_texts_survive(gate: gharial.Gharial):
    """What the policy shows comes back equal: whole numbers of any size, floats, escapes, characters beyond ASCII."""
    lines = [2**70, -0.0, 1e-300, 1.5, True, None, 'é"\\\n\u2028', {"plan": [[]]}]
    assert gate.protect({"lines": lines}, caller=NOBODY) == {"lines": lines}


def test_a_purpose_of_the_call_stands_in_the_place_of_the_callers(gate: gharial.Gharial):
    """The clerk sees a name for support, and not for anything else."""
    shown = gate.protect(customer(1), caller=CLERK, purpose="marketing")
    assert shown["fullName"] != customer(1)["fullName"]
    idle = gharial.Caller(client="crm", roles=["care"])
    assert gate.protect(customer(1), caller=idle, purpose="support")["fullName"] == customer(1)["fullName"]


def test_random_tokens_are_the_same_in_memory_as_long_as_the_program_and_in_a_store_for_good(tmp_path: Path):
    """Equal values have one token; a program that opens the store again gives the token of before."""
    policy = POLICY.replace("{ person: token(scope=client), public", "{ person: token(from=vault), public")
    (tmp_path / "policy.yaml").write_text(policy)
    with gharial.load(tmp_path / "policy.yaml", ephemeral=True) as gate:
        tokens = [gate.protect(customer(n), caller=NOBODY)["customerId"] for n in (7, 8, 7)]
    assert [len(token) for token in tokens] == [27, 27, 27]
    assert tokens[0] == tokens[2] != tokens[1]
    config = write_home(tmp_path / "home", policy=policy)
    with gharial.load(config) as gate:
        first = gate.protect(customer(7), caller=NOBODY, route="list")["customerId"]
    with gharial.load(config) as gate:
        assert gate.protect(customer(7), caller=NOBODY, route="list")["customerId"] == first != tokens[0]


def test_a_policy_in_shadow_mode_is_enforced(tmp_path: Path):
    """Shadow is for traffic; what is handed over to be protected is protected."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("mode: enforce", "mode: shadow"))
    with gharial.load(file, ephemeral=True) as gate:
        assert gate.protect({"fullName": MARK}, caller=NOBODY) == {"fullName": "[redacted]"}


# --- what is refused --------------------------------------------------------------------------------------------------


class Colour(enum.StrEnum):
    RED = "red"


HOLDS_ITSELF: list[Any] = []
HOLDS_ITSELF.append(HOLDS_ITSELF)

UNFIT: dict[str, Any] = {
    "a tuple": {"plan": (1, 2)},
    "a set": {"plan": {1}},
    "bytes": {"plan": MARK.encode()},
    "a number as a name": {1: MARK},
    "None as a name": {None: MARK},
    "not a number": {"plan": float("nan")},
    "infinity": {"plan": [float("-inf")]},
    "a decimal": {"plan": decimal.Decimal("1.0")},
    "an enum": {"plan": Colour.RED},
    "an ordered dict": collections.OrderedDict(plan=1),
    "an ordered dict within": {"plan": collections.OrderedDict(x=1)},
    "half a character": {"plan": "\ud800"},
    "half a character in a str": '{"plan": "\ud800"}',
    "a list that holds itself": HOLDS_ITSELF,
    "a number that is longer than Python writes": {"plan": 10**5000},
    "more than the limits allow": [0] * 200_001,
    "a generator": (n for n in range(3)),
    "a number alone": 5,
    "nothing": None,
    "a bytearray": bytearray(b"{}"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_json_lacks_is_refused(gate: gharial.Gharial, what: str):
    """Nothing is turned into JSON by guessing, and no text of the refusal quotes it."""
    with pytest.raises(DataUnfit) as found:
        gate.protect(UNFIT[what], caller=CLERK)
    assert MARK not in str(found.value)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "body.malformed"),
        (b"{", "body.malformed"),
        (b'{"fullName": "Zx81Planted", "fullName": 1}', "body.duplicate_name"),
        (b"[" * 100 + b"]" * 100, "body.too_deep"),
        (b'"' + b"x" * 16_000_000 + b'"', "body.too_large"),
        (b'{"fullName": "Zx81Planted"} {}', "body.malformed"),
    ],
)
def test_what_the_gate_refuses_is_refused(gate: gharial.Gharial, text: bytes, code: str):
    """A text that the gate would answer with 502 raises the same error, and its text quotes nothing."""
    with pytest.raises(GharialError) as found:
        gate.protect(text, caller=CLERK)
    assert found.value.code == code
    assert MARK not in str(found.value)


def test_a_bug_raises_and_tells_nothing(gate: gharial.Gharial, monkeypatch: pytest.MonkeyPatch):
    """Whatever breaks inside becomes a GharialError without the text of what broke."""

    async def broken(*_: object, **__: object) -> None:
        raise ValueError(MARK)

    monkeypatch.setattr(GateExchange, "on_body", broken)
    with pytest.raises(GharialError) as found:
        gate.protect(customer(1), caller=CLERK)
    assert found.value.code == "internal"
    assert MARK not in repr(found.value)
    assert found.value.__cause__ is None


def test_an_audit_that_cannot_be_written_refuses(gate: gharial.Gharial, monkeypatch: pytest.MonkeyPatch):
    """As in the gate: no clear value leaves without its record."""

    async def full(*_: object, **__: object) -> None:
        raise AuditUnwritable

    monkeypatch.setattr(MemoryAudit, "append", full)
    with pytest.raises(AuditUnwritable):
        gate.protect(customer(1), caller=CLERK)


def test_unchanged_bytes_of_an_exchange_never_come_back(gate: gharial.Gharial):
    """An exchange that would let a body pass as it is, as in shadow, is an error here."""
    services = gate._engine.services
    services.publisher.publish({name: _shadow(policy) for name, policy in services.publisher.active.policies.items()})
    head = gharial.wiring.library.find_request(services.routes, "data", {})

    async def work() -> bytes:
        return await protect_document(GateExchange(services, CLERK.verified("default")), head, b"{}")

    with pytest.raises(GharialError) as found:
        gate._engine.run(work).result()
    assert found.value.code == "gate.protocol"


def _shadow(policy: Any) -> Any:
    from dataclasses import replace

    from gharial.model.plan import Mode

    return replace(policy, mode=Mode.SHADOW)


# --- callers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts",
    [
        {"client": ""},
        {"client": "a\nb"},
        {"client": 5},
        {"user": " x"},
        {"roles": "care"},
        {"roles": [""]},
        {"roles": [1]},
        {"purpose": "two words"},
        {"country": "Germany"},
        {"country": "de"},
        {"network": "Tor"},
        {"claims": {"a": {}}},
        {"claims": {1: "a"}},
        {"claims": [1]},
        {"claims": {"a": float("nan")}},
        {"claims": {"a": 2**64}},
    ],
)
def test_a_caller_that_cannot_be_one_is_refused(facts: dict[str, Any]):
    """A fact of the wrong form is the embedding code's mistake; it is not dropped in silence."""
    with pytest.raises(CallerInvalid):
        gharial.Caller(**facts)


@pytest.mark.parametrize("caller", [None, "crm", {"client": "crm"}, CLERK.verified("default")])
def test_only_a_stated_caller_asks(gate: gharial.Gharial, caller: Any):
    """Nothing else is taken for a caller, not even the gate's own form of one."""
    with pytest.raises(CallerInvalid):
        gate.protect({}, caller=caller)


def test_a_caller_does_not_change_with_the_lists_that_it_was_made_of():
    """Roles and claims are copied."""
    roles, claims = ["care"], {"amr": ["mfa"]}
    caller = gharial.Caller(roles=roles, claims=claims)
    roles.append("auditor")
    claims["amr"].append("x")
    assert caller.roles == ("care",)
    assert caller.claims == {"amr": ("mfa",)}


# --- routes -----------------------------------------------------------------------------------------------------------


def test_the_person_of_a_path_counts(gate: gharial.Gharial):
    """A record without an id of its own is the person's that the parameters name, as in the gate."""
    gate.protect({"fullName": "x"}, caller=CLERK, params={"id": "c1"})
    gate.protect({"fullName": "x"}, caller=CLERK, params={"id": "c1"})
    gate.protect({"fullName": "x"}, caller=CLERK, route="record", params={"id": "a/b c"})
    people = {tuple(line["people"]["clear"]) for line in lines_of(gate)}
    assert len(people) == 2


def lines_of(gate: gharial.Gharial) -> list[dict[str, Any]]:
    audit = gate._engine._world.audit
    assert isinstance(audit, MemoryAudit)
    return [json.loads(line) for line in audit.lines]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({}, RouteUnfit),
        ({"route": "nowhere"}, RouteUnfit),
        ({"route": "open"}, RouteUnfit),
        ({"route": "GET /open/x"}, RouteUnfit),
        ({"route": "GET /nowhere"}, NoRoute),
        ({"route": "customer"}, RouteUnfit),
        ({"route": "customer", "params": {"id": ".."}}, RouteUnfit),
        ({"route": "customer", "params": {"id": ""}}, RouteUnfit),
        ({"route": "customer", "params": {"id": True}}, RouteUnfit),
        ({"route": "customer", "params": {"id": "\ud800"}}, RouteUnfit),
        ({"route": "customer", "params": {"id": "x", "more": 1}}, RouteUnfit),
        ({"route": "GET /customers/x", "params": {"id": "x"}}, RouteUnfit),
        ({"route": "GET /customers/%2e%2e"}, GharialError),
        ({"route": "get /customers/x"}, GharialError),
        ({"route": 5}, CallerInvalid),
    ],
)
def test_a_route_that_is_not_one_is_refused(tmp_path: Path, more: dict[str, Any], error: type[GharialError]):
    """A passing route protects nothing, and a guess at the route would be a guess at the policy."""
    with gharial.load(write_home(tmp_path), ephemeral=True) as gate, pytest.raises(error):
        gate.protect(customer(1), caller=CLERK, **more)


def test_a_route_is_named_or_written_as_a_request_line(tmp_path: Path):
    """Both lead to the same plan, and leave the same record but for time and id."""
    config = write_home(tmp_path)
    with gharial.load(config) as gate:
        gate.protect(customer(1), caller=CLERK, route="customer", params={"id": customer_id(1)})
        gate.protect(customer(1), caller=CLERK, route=f"GET /customers/{customer_id(1)}")
    first, second = (_same(line) for line in audit_of(tmp_path))
    assert first == second
    assert (first["route"], first["source"], first["client"]) == ("customer", "embedded", "crm")


def _same(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("time", "exchange", "ms")}


# --- budgets, store, audit --------------------------------------------------------------------------------------------


def test_budgets_go_on_after_a_restart(tmp_path: Path):
    """Sixty people an hour are sixty, in however many processes one after the other; an incident is kept."""
    config = write_home(tmp_path)
    shown: set[int] = set()
    for batch in (range(40), range(40, 80)):
        with gharial.load(config) as gate:
            for number in batch:
                shown |= people_in_clear(
                    json.dumps(gate.protect(customer(number), caller=CLERK, route="list")).encode()
                )
    assert len(shown) == 60
    assert sum(bool(line["budgets_crossed"]) for line in audit_of(tmp_path)) > 0
    assert not any(needle in (tmp_path / "run" / "gharial.db").read_bytes() for needle in PLANTED)


def test_a_store_has_one_owner(tmp_path: Path):
    """A second gate on the same store is refused, and the first goes on; afterwards the store is free."""
    config = write_home(tmp_path)
    with gharial.load(config) as gate:
        with pytest.raises(StoreInUse):
            gharial.load(config)
        gate.protect({}, caller=CLERK, route="list")
    gharial.load(config).close()


def test_threads_and_loops_share_one_budget(gate: gharial.Gharial):
    """Concurrent calls from threads and from event loops of their own show as many people as the budget says."""
    texts: list[bytes] = []

    def ask(numbers: range) -> None:
        texts.extend(gate.protect(json.dumps(customer(n)).encode(), caller=CLERK) for n in numbers)

    def ask_async(numbers: range) -> None:
        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(gate.protect_async(customer(n), caller=CLERK) for n in numbers))

        texts.extend(json.dumps(shown).encode() for shown in asyncio.run(all_of_them()))

    threads = [
        threading.Thread(target=work, args=(range(start, start + 40),))
        for start, work in ((0, ask), (40, ask_async), (80, ask), (120, ask_async))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 160
    assert len(people_in_clear(*texts)) == 60


async def test_the_asynchronous_call_gives_the_same_and_raises_the_same(gate: gharial.Gharial):
    """`protect_async` differs in nothing but in how it is waited for."""
    assert await gate.protect_async(customer(1), caller=CLERK) == gate.protect(customer(1), caller=CLERK)
    assert type(await gate.protect_async("{}", caller=CLERK)) is str
    with pytest.raises(GharialError):
        await gate.protect_async(b"{", caller=CLERK)
    with pytest.raises(DataUnfit):
        await gate.protect_async({"a": (1,)}, caller=CLERK)


# --- opening and closing ----------------------------------------------------------------------------------------------


def test_a_closed_gate_refuses(policy_file: Path):
    """After `close` nothing is protected, and a second `close` does nothing."""
    gate = gharial.load(policy_file, ephemeral=True)
    gate.close()
    gate.close()
    with pytest.raises(GateUnavailable):
        gate.protect({}, caller=CLERK)
    with pytest.raises(GateUnavailable):
        gate.status()


def test_a_fork_refuses(policy_file: Path):
    """A child has none of the threads: it must load a gate of its own, and does not wait for ever."""
    with gharial.load(policy_file, ephemeral=True) as gate:
        child = os.fork()
        if child == 0:
            try:
                gate.protect({}, caller=CLERK)
            except GateUnavailable:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert gate.protect({}, caller=CLERK) == {}


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda base: base / "missing.yaml", ConfigInvalid),
        (lambda base: _write(base, "policy: p\ntags: 5\n"), PolicyInvalid),
        (lambda base: _write(base, "- 1"), ConfigInvalid),
        (lambda base: _write(base, ":\n:"), ConfigInvalid),
        (lambda base: _without_keys(base), KeyFileUnusable),  # noqa: PLW0108 - defined below
    ],
)
def test_what_cannot_be_loaded_is_refused(tmp_path: Path, make: Callable[[Path], Path], error: type[GharialError]):
    """A file with mistakes, or without its keys, opens no gate."""
    with pytest.raises(error):
        gharial.load(make(tmp_path), ephemeral=error is PolicyInvalid)


def _write(base: Path, text: str) -> Path:
    (base / "file.yaml").write_text(text)
    return base / "file.yaml"


def _without_keys(base: Path) -> Path:
    config = write_home(base)
    (base / "run" / "keys.json").unlink()
    return config


def test_a_policy_alone_must_be_called_ephemeral(policy_file: Path):
    """Keys that are thrown away are nobody's default."""
    with pytest.raises(ConfigInvalid, match="ephemeral"):
        gharial.load(policy_file)


def test_ephemeral_writes_nothing(tmp_path: Path):
    """With `ephemeral` a gharial.yaml's keys, store and audit are not touched, even if they are not there."""
    config = _without_keys(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with gharial.load(config, ephemeral=True) as gate:
        assert gate.protect({"fullName": MARK}, caller=NOBODY, route="list") == {"fullName": "[redacted]"}
    assert sorted(tmp_path.rglob("*")) == before


async def test_the_store_in_memory_keeps_what_the_port_says():
    """The newest time of a charge counts, old ones can be forgotten."""
    from gharial.gate.ports import Charge

    store = MemoryStore()
    await store.charge([Charge("p", "q", "g", "x", 5.0), Charge("p", "q", "g", "y", 6.0)])
    await store.charge([Charge("p", "q", "g", "x", 9.0), Charge("p", "q", "g", "y", 1.0)])
    assert [(c.person, c.at_s) for c in await store.load_charges(0)] == [("y", 6.0), ("x", 9.0)]
    assert await store.delete_charges(7.0) == 1
    assert [c.person for c in await store.load_charges(0)] == ["x"]


# --- the public face --------------------------------------------------------------------------------------------------


def test_importing_gharial_imports_next_to_nothing():
    """`import gharial` loads no adapter, no room and no library; names come when they are asked for."""
    code = (
        "import sys, gharial; "
        "assert not [m for m in sys.modules if m.startswith('gharial.')], sys.modules; "
        "assert 'asyncio' not in sys.modules; "
        "gharial.Caller; assert not [m for m in sys.modules if m.startswith(('gharial.adapters', 'gharial.wiring'))]; "
        "assert {'load', 'Caller', 'Gharial', 'GharialError'} <= set(dir(gharial))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_public_name_is_there():
    """`__all__` holds no name that can't be had, and nothing else is invented."""
    assert all(getattr(gharial, name) is not None for name in gharial.__all__)
    with pytest.raises(AttributeError):
        _ = gharial.protekt  # type: ignore[attr-defined]


def test_a_program_that_never_closes_ends_and_loses_no_line(tmp_path: Path):
    """The end of the process closes the gate: its audit is whole."""
    config = write_home(tmp_path)
    code = (
        "import gharial, sys; g = gharial.load(sys.argv[1]); "
        "g.protect({'fullName': 'x'}, caller=gharial.Caller(), route='list')"
    )
    subprocess.run([sys.executable, "-c", code, str(config)], check=True, timeout=60)
    assert [line["route"] for line in audit_of(tmp_path)] == ["list"]


def test_the_examples_of_docstrings_run():
    """What docstrings show is what happens."""
    assert doctest.testmod(gharial.gate.vouch).failed == 0


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """docs/library.md is one session, run from top to bottom beside the telecom example's policy."""
    root = Path(__file__).parents[2]
    write_home(tmp_path, (root / "examples" / "telecom" / "policy.yaml").read_text(), routes=DOC_ROUTES)
    (tmp_path / "policy.yaml").write_text((root / "examples" / "telecom" / "policy.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    text = (root / "docs" / "library.md").read_text()
    session = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    test = doctest.DocTestParser().get_doctest(session, {}, "library.md", "library.md", 0)
    assert len(test.examples) > 8
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(test).failed == 0


DOC_ROUTES = [
    {"route": "customer", "match": "GET /customers/{id}", "upstream": "api", "policy": "telecom-customers"},
    {"route": "search", "match": "GET /customers", "upstream": "api", "policy": "telecom-customers"},
]
