"""CEL: typed, bounded, one of true, false, missing and failed; never a value of another kind taken for true."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.policy.cel import CEL_VARIABLES, MAX_CEL_CHARS, CelError, CelFailed, CelMissing, compile_cel

FACTS = {
    "client": "acme-billing",
    "team": "finance",
    "user": "ünal",
    "roles": ("care", "lead"),
    "claims": {"dept": "x", "level": 3, "amr": ("mfa", "pwd"), "ok": True, "share": 0.5},
    "purpose": "support",
    "country": "DE",
    "network": "corporate",
    "hour": 3,
    "weekday": "mon",
}


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("client.startsWith('acme-') && country in ['DE', 'FR']", True),
        ("'lead' in roles", True),
        ("roles.exists(r, r == 'boss')", False),
        ("claims.level >= 3 && 'mfa' in claims.amr", True),
        ("has(claims.nothing)", False),
        ("hour < 6 || weekday in ['sat', 'sun']", True),
        ("user == 'ünal' && size(user) == 4", True),
        ("claims.ok == true && claims.share < 1.0", True),
        ("client.matches('^acme-[a-z]+$')", True),
        ("false", False),
    ],
)
def test_an_expression_decides_over_the_facts(text, outcome):
    """What the policy's author wrote is what comes out, for every variable."""
    assert compile_cel(text).holds(FACTS) is outcome


@pytest.mark.parametrize(
    ("text", "said", "offset"),
    [
        ("cleint == 'x'", "did you mean 'client'", 0),
        ("true &&\n  cuntry == 'DE'", "did you mean 'country'", 10),
        ("'é🐙' == user &&", "Syntax error", 15),
        ("hour < '3'", "no matching overload", 5),
        ("country == null", "no matching overload", 8),
        ("client", "of type string", None),
        ("claims.ok", "a claim of any type", None),
        ("", "empty", None),
        ("   ", "empty", None),
        ("client == '\ud800'", "surrogate", None),
        ("user.matches('(')", "pattern", None),
        ("timestamp('tomorrow') == timestamp('tomorrow')", "can't be evaluated", None),
        ("now() == 1", "unknown name 'now'", 3),
    ],
)
def test_a_mistake_is_found_at_load_with_its_place(text, said, offset):
    """Unknown names, types that do not fit, and what is no condition never become part of a policy."""
    with pytest.raises(CelError) as caught:
        compile_cel(text)
    assert said in caught.value.message
    assert caught.value.offset == offset


def _nested(levels: int) -> str:
    text = "true"
    for level in range(levels):
        text = f"roles.all(r{level}, {text})"
    return text


@pytest.mark.parametrize(
    "text",
    [
        _nested(2),
        _nested(8),
        "roles.map(a, a + a).map(b, b + b).size() > 0",
        "roles.filter(r, true).size() == 0",
        "claims.s + claims.s == 'x'",
        "[[1]].exists(a, [[a, a, a]].exists(b, [[b, b, b]].exists(c, c == c)))",
        "client.matches(claims.pattern)",
        f"client.matches('{'a?' * 150}')",
        "(" * 100 + "true" + ")" * 100,
        "!" * 2_000 + "true",
        "||".join(["client == 'x'"] * 500),
        "google.protobuf.Int64Value{value: 1} == 1",
    ],
)
def test_what_could_cost_without_bound_is_refused_at_load(text):
    """Loops in loops, growing values, patterns out of data, endless texts: each is a mistake, found in no time."""
    started = time.perf_counter()
    with pytest.raises(CelError):
        compile_cel(text)
    assert time.perf_counter() - started < 30


def test_a_long_list_of_facts_is_refused_not_waited_for():
    """The library's budget of steps ends a loop over more than a caller has; the outcome is a failure."""
    program = compile_cel("roles.all(r, r != 'x')")
    with pytest.raises(CelFailed):
        program.holds({**FACTS, "roles": tuple(f"r{n}" for n in range(50_000))})


@pytest.mark.parametrize(
    "text",
    [
        "claims.dept > 3",
        "claims.level == 3 && claims.dept.nested == 1",
        "claims.level / (hour - 3) == 1",
        "!claims.dept",
    ],
)
def test_a_failure_while_evaluating_is_never_an_outcome(text):
    """Errors are values in the library, and a text is true in Python: they come out as CelFailed, without a value."""
    program = compile_cel(text)
    with pytest.raises(CelFailed) as caught:
        program.holds(FACTS)
    assert not isinstance(caught.value, CelMissing)
    assert str(caught.value) == "an expression of the policy could not be evaluated"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("country != 'US'", "country"),
        ("client != 'acme'", "client"),
        ("!('boss' in roles)", "roles"),
        ("claims.dept != 'y'", "claims"),
        ("hour > 1", "hour"),
        ("network == 'tor'", "network"),
    ],
)
@pytest.mark.parametrize("how", ["absent", "empty", "none"])
def test_a_missing_fact_has_an_outcome_of_its_own(text, without, how):
    """What depends on a missing fact is neither true nor false: no negation turns ignorance into a grant."""
    facts: dict[str, object] = {key: value for key, value in FACTS.items() if key != without}
    if how == "none":
        facts[without] = None
    elif how == "empty":
        facts[without] = {"roles": (), "claims": {}, "hour": None}.get(without, "")
    with pytest.raises(CelMissing):
        compile_cel(text).holds(facts)


def test_a_missing_fact_that_changes_nothing_does_not_matter():
    """Where one side decides alone, the other may be missing."""
    assert compile_cel("country == 'DE' || hour < 6").holds({"hour": 3}) is True
    assert compile_cel("country == 'DE' && hour > 6").holds({"hour": 3}) is False


def test_anonymous_is_no_client():
    """A call without a credential has no client; a negation is not met by it."""
    with pytest.raises(CelMissing):
        compile_cel("client != 'acme'").holds({"client": "anonymous"})


@pytest.mark.parametrize("odd", [2**70, "\ud800", {"a": 1}, None, [None], ""])
def test_a_claim_that_cant_be_compared_is_missing_and_spoils_no_other(odd):
    """An issuer may put anything into a token; the claims that an expression reads still decide."""
    facts = {**FACTS, "claims": {"odd": odd, "\udfff": 1, "dept": "x"}}
    assert compile_cel("claims.dept == 'x' && !has(claims.odd)").holds(facts) is True
    with pytest.raises(CelMissing):
        compile_cel("claims.odd == 'x'").holds(facts)


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("hour < 6", {"hour"}),
        ("claims.dept == 'x' || claims['a b'] == 1", {"claims.dept", "claims.a b"}),
        ("has(claims.x)", {"claims.x"}),
        ("'x' in claims && client == team", {"claims", "client", "team"}),
        ("roles.exists(r, r == user)", {"roles", "user"}),
        (
            "country == 'DE' ? hour < 6 : purpose in [network, weekday]",
            {"country", "hour", "purpose", "network", "weekday"},
        ),
        ("true", set()),
    ],
)
def test_an_expression_says_what_it_reads(text, reads):
    """Whoever remembers an outcome can do so by exactly these facts."""
    assert compile_cel(text).reads == reads


@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_a_mistake(text):
    """No text makes the compiler raise anything but CelError, and what compiles gives true, false or CelFailed."""
    with contextlib.suppress(CelFailed):
        try:
            program = compile_cel(text)
        except CelError as mistake:
            offset = mistake.offset
        else:
            assert program.holds(FACTS) in (True, False)
            return
        assert offset is None or 0 <= offset <= len(text)


@given(
    st.dictionaries(
        st.sampled_from(sorted(CEL_VARIABLES)),
        st.none() | st.text(max_size=5) | st.integers() | st.booleans() | st.lists(st.text(max_size=3), max_size=3),
    )
)
def test_any_facts_give_an_outcome_or_a_failure(facts):
    """Facts of the wrong type are a failure, never an outcome, and never another exception."""
    program = compile_cel("client != 'a' && hour < 7 && roles.exists(r, r == team) && claims.a == country")
    with contextlib.suppress(CelFailed):
        assert program.holds(facts) in (True, False)


def test_an_expression_that_just_fits_is_read():
    """The bound is on the text, not on something near it."""
    text = "client == '" + "x" * (MAX_CEL_CHARS - 12) + "'"
    assert len(text) == MAX_CEL_CHARS
    assert compile_cel(text).holds(FACTS) is False


def test_a_policy_without_expressions_does_not_load_the_library():
    """The library costs start-up time and memory only where an expression is used."""
    check = "import sys, gharial.policy.cel as c; assert 'cel_expr_python' not in sys.modules; c.compile_cel('true')"
    subprocess.run([sys.executable, "-c", check], check=True)
