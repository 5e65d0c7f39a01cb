"""Grows the corpus: draws plans and documents, and keeps the small cases that show something no kept case shows.

Run from the repository's root: PYTHONPATH=tests:src python tests/corpus/plans/grow.py
The same seed and version of hypothesis give the same cases. Cases that are kept are run by the tests; this script is
not. After a change of rules run it again and read the diff.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from support.documents import documents, pages, plans
from support.json_oracle import Oracle, Refused
from support.plan_cases import GROWN, executors_of, plan_of, read_bytes, real_transforms, run_case, write_bytes
from support.rich_documents import FEATURES, rich_documents, rich_plans

from gharial.model.plan import Op, Plan, Unlisted, dump_plan

LARGEST_CHARS = 3_000
THEMES: dict[str, tuple[st.SearchStrategy[Plan], st.SearchStrategy[str], int]] = {
    "trie": (plans(), st.one_of(documents(), pages()), 60),
    "techniques": (rich_plans(), st.one_of(rich_documents(), pages()), 60),
    "where": (rich_plans(("where",)), rich_documents(), 25),
    "general": (rich_plans(("general",)), rich_documents(), 40),
    "keys": (rich_plans(("keys",)), rich_documents(), 30),
    "strings": (rich_plans(("strings",)), rich_documents(), 35),
    "detector": (rich_plans(("detector",)), rich_documents(), 30),
    "detect": (rich_plans(("detect", "detector")), rich_documents(), 25),
    "mixed": (
        st.lists(st.sampled_from(FEATURES), min_size=2, max_size=4, unique=True).flatmap(rich_plans),
        rich_documents(),
        50,
    ),
}
"""Plans, documents, and how many cases are kept."""

LIMITS = st.sampled_from([{}] * 12 + [{"depth": 2}, {"values": 4}, {"body_bytes": 40}])
DAMAGE = st.sampled_from([b""] * 12 + [b"\xef\xbb\xbf", b"\xff", b"}", b"\x00"])


def drawn(theme: str, number: int) -> list[tuple[Plan, bytes, dict[str, int], list[int]]]:
    """Draw that many candidates."""
    found: list[tuple[Plan, bytes, dict[str, int], list[int]]] = []
    chosen_plans, chosen_documents, _ = THEMES[theme]

    @seed(sum(map(ord, theme)))
    @settings(
        max_examples=number, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(chosen_plans, chosen_documents, LIMITS, DAMAGE, st.booleans(), st.lists(st.integers(0, 3), max_size=6))
    def collect(
        plan: Plan, text: str, limits: dict[str, int], damage: bytes, before: bool, picks: list[int]
    ) -> None:  # fmt: skip
        body = damage + text.encode() if before else text.encode() + damage
        found.append((plan, body, limits, picks))

    collect()
    return found


def case_of(plan: Plan, body: bytes, limits: dict[str, int], picks: list[int]) -> dict[str, Any]:
    """Run a candidate through every executor that can run it; they must agree."""
    variants = None
    first = run_case(executors_of(plan)[0], plan, body, limits, None)
    if "error" not in first:
        picks = picks or [0]
        variants = [picks[at % len(picks)] % len(plan.variants) for at in range(len(first["scopes"]))]
    results = [run_case(executor, plan, body, limits, variants) for executor in executors_of(plan)]
    assert all(result == results[0] for result in results), (dump_plan(plan), body)
    result = results[0]
    if variants is not None and not plan.needs_reference and not body.startswith(b"\xef\xbb\xbf") and body.strip():
        agree_with_oracle(plan, body, variants, result)
    case: dict[str, Any] = {"plan": json.loads(dump_plan(plan)), **write_bytes("input", body)}
    if variants is not None:
        case["variants"] = variants
    if limits:
        case["limits"] = limits
    if "error" in result:
        return {**case, **result}
    output = result.pop("output")
    return {**case, **write_bytes("output", output), **result}


def agree_with_oracle(plan: Plan, body: bytes, variants: list[int], result: dict[str, Any]) -> None:
    try:
        want = Oracle(plan, body.decode()).finish(variants, real_transforms(plan))
    except Refused:
        # A variant may replace what another one copies, and only then look at its names.
        assert result == {"error": "body.duplicate_name"}
        return
    assert want.text.encode() == result["output"]
    assert {str(step): count for step, count in sorted(want.counts.items())} == result["counts"]


def features_of(case: dict[str, Any]) -> Iterator[str]:
    """What a case shows."""
    plan = plan_of(case)
    yield f"unlisted {plan.unlisted}"
    if "error" in case:
        yield f"error {case['error']}"
        return
    yield f"variants {len(set(case['variants']))} of {len(plan.variants)}"
    source, output = read_bytes("input", case), read_bytes("output", case)
    yield f"changed {case['changed']}"
    if source.startswith(b"\xef\xbb\xbf"):
        yield "byte order mark"
    for step in case["counts"]:
        told = plan.steps[int(step)]
        yield f"step {told.op} {told.args}"
    for scope in case["scopes"]:
        yield f"subjects {min(len(scope['subjects']), 3)}"
        yield f"cells {min(len(scope['cells']), 3)}"
        yield from (f"reports {kind}" for _, kind, _ in scope["values"])
    yield f"scopes {min(len(case['scopes']), 4)}"
    if case["unlisted"]:
        yield "something unlisted"
    if b"\\u" in output and source != output:
        yield "escapes copied"
    if any(place.endswith("~") for place, _, _ in case["findings"]):
        yield "names found"
        if b'#2"' in output:
            yield "names collide"
    if any(place == "$" for place, _, _ in case["findings"]):
        yield "root found"
    if plan.json_in_strings:
        yield f"strings {source.count(bytes([92, 34])) > 0} {output.count(bytes([92, 34])) > 0}"
    for extra in plan.extras:
        if any(extra.cell in scope["cells"] for scope in case["scopes"]):
            yield f"found by {extra.path} {extra.where} {extra.keys} {extra.detector}"
    if plan.unlisted is Unlisted.DETECT and b"[redacted]" in output and b"[redacted]" not in source:
        yield "detected"
    if output in (b"{}", b"[]", b"null", b'"{}"', b'"[]"'):
        yield f"nothing left {output.decode()}"
    if any(step.op is Op.DROP for step in plan.steps) and len(output) < len(source) // 2:
        yield "much removed"


def kept(cases: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Keep, small ones first, what shows a new pair of things together; each refusal once for each way of unlisted."""
    seen: set[tuple[str, str]] = set()
    chosen: list[tuple[bool, int, int, dict[str, Any]]] = []
    sized = sorted(cases, key=lambda case: len(json.dumps(case)))
    for at, case in enumerate(sized):
        shown = sorted(set(features_of(case)))
        new = set(combinations(shown, 2)) - seen | {(one, one) for one in shown} - seen
        if new:
            seen |= new
            chosen.append(("error" not in case, -len(new), at, case))
    best = sorted(chosen, key=lambda entry: entry[:3])[:most]
    return [case for *_, case in sorted(best, key=lambda entry: entry[2])]


def main(say: Callable[[str], object] = print) -> None:
    """Write `grown/THEME.jsonl` anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", type=int, default=1500, help="candidates of each theme")
    options = parser.parse_args()
    GROWN.mkdir(exist_ok=True)
    for theme, (_, _, most) in THEMES.items():
        candidates = [case_of(*candidate) for candidate in drawn(theme, options.draw)]
        small = [case for case in candidates if len(json.dumps(case)) <= LARGEST_CHARS]
        cases = [{"id": f"{theme}-{at:03d}", **case} for at, case in enumerate(kept(small, most), 1)]
        text = "".join(json.dumps(case) + "\n" for case in cases)
        (GROWN / f"{theme}.jsonl").write_text(text, encoding="ascii")
        say(f"{theme}: {len(cases)} of {len(candidates)}, {len(text)} characters")


if __name__ == "__main__":
    main()
