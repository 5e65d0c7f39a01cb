"""Decoys, tokens of somebody else, and filters on hidden fields: what each says, and what it does not."""

from __future__ import annotations

from gharial.watch.decoys import DecoyRule, Decoys
from gharial.watch.misuse import FOREIGN_TOKEN, PROBING, Misuse
from gharial.watch.sight import Sight


def a_sight(at_s: float = 0.0, refusal: str = "", people: tuple[str, ...] = ()) -> Sight:
    return Sight(at_s, "default", "acme", refusal=refusal, people=people)


def test_one_decoy_is_critical():
    """Who asks for an id of nobody has no honest reason."""
    decoys = Decoys(DecoyRule("decoy"), ["d1", "d2"])
    (verdict,) = decoys.look(a_sight(), ["d2", "other"])
    assert (verdict.severity, verdict.people) == ("critical", ("d2",))


def test_a_decoy_in_a_list_is_nothing():
    """Decoys may stand in lists that honest callers get, so only asking for one counts."""
    assert Decoys(DecoyRule("decoy"), ["d1"]).look(a_sight(people=("d1",)), ["other"]) == ()


def test_one_foreign_token_is_high_and_many_are_critical():
    """One may be a mistake of theirs, twenty are none."""
    misuse = Misuse(FOREIGN_TOKEN)
    severities = [misuse.look(a_sight(n, "token.refused"))[0].severity for n in range(25)]
    assert severities[0] == "high"
    assert severities[-1] == "critical"


def test_probing_needs_ten_within_ten_minutes():
    """Nine are none, ten are; ten over an hour are none."""
    misuse = Misuse(PROBING)
    assert not any(misuse.look(a_sight(n, "request.probes")) for n in range(9))
    assert misuse.look(a_sight(9, "request.probes"))[0].severity == "medium"
    slow = Misuse(PROBING)
    assert not any(slow.look(a_sight(n * 360, "request.probes")) for n in range(20))


def test_other_refusals_are_nothing():
    """A refusal for another reason, and an answer, tell nothing of intent."""
    assert not any(Misuse(FOREIGN_TOKEN).look(a_sight(n, code)) for n, code in enumerate(("", "body.malformed") * 30))
