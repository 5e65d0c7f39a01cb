"""Measures hold at once, end by themselves, and can be undone."""

from __future__ import annotations

from gharial.watch.measures import BLOCK, MASK, THROTTLE, THROTTLED_PER_MINUTE, ActiveMeasure, MeasureBook


def a_measure(name: str = MASK, who: str = "user\x1fa", until_s: float = 100.0, incident: str = "inc_1"):
    return ActiveMeasure(name, who, until_s, 0.0, "harvest", incident)


def test_a_measure_holds_until_its_end():
    """From the moment it is imposed until its end, and for nobody else."""
    book = MeasureBook()
    assert book.impose(a_measure())
    assert book.standing(["user\x1fa"], 99.9).mask
    assert not book.standing(["user\x1fa"], 100.0).mask
    assert not book.standing(["user\x1fb"], 50.0).mask


def test_seeing_more_prolongs():
    """The same measure again is no second one; it lasts longer, never shorter."""
    book = MeasureBook()
    assert book.impose(a_measure(until_s=100))
    assert not book.impose(a_measure(until_s=200))
    assert not book.impose(a_measure(until_s=150))
    assert book.standing(["user\x1fa"], 199).until_s == 200


def test_measures_of_client_user_and_team_add_up():
    """What holds for any of a caller's names holds for the caller."""
    book = MeasureBook()
    book.impose(a_measure(MASK, "client\x1fa"))
    book.impose(a_measure(BLOCK, "user\x1fa"))
    standing = book.standing(["client\x1fa", "user\x1fa"], 1)
    assert (standing.throttle, standing.mask, standing.block) == (False, True, True)


def test_undo_ends_what_was_done_for_one_incident():
    """The measures of the incident end, those of another stay."""
    book = MeasureBook()
    book.impose(a_measure(MASK))
    book.impose(a_measure(BLOCK, incident="inc_2"))
    assert [measure.name for measure in book.undo("inc_1")] == [MASK]
    standing = book.standing(["user\x1fa"], 1)
    assert (standing.mask, standing.block) == (False, True)
    assert book.undo("inc_1") == ()


def test_a_throttled_caller_still_gets_some():
    """So many a minute and no more, however fast it asks."""
    book = MeasureBook()
    book.impose(a_measure(THROTTLE))
    passed = sum(book.has_room("p", second / 10) for second in range(600))
    assert THROTTLED_PER_MINUTE <= passed <= 2 * THROTTLED_PER_MINUTE
    assert book.has_room("other", 0.0)


def test_a_clock_set_back_gives_no_room():
    """Going back in time makes nobody's bucket full."""
    book = MeasureBook()
    while book.has_room("p", 1_000.0):
        pass
    assert not book.has_room("p", 0.0)
    assert not book.has_room("p", 5.0)
