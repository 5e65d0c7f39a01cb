"""Digests of people and credentials last through rotations; entity tags come back to whom they were given."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gharial.crypto.digest import credential_hash, open_etag, person_digest, same_hash, seal_etag
from gharial.crypto.keyset import KeyState, create_keyset, rotate, set_state
from gharial.model.errors import PreconditionFailed

KEYSET = create_keyset(random.Random(31).randbytes, 1.0)
ROTATED = rotate(KEYSET, random.Random(32).randbytes, 2.0)
OTHER = create_keyset(random.Random(33).randbytes, 1.0)
ETAG = '"v1-PLANTED"'


@given(st.text())
def test_a_person_digest_has_128_bits_and_no_value(text):
    """A digest is 22 characters of base64url, always the same for the same person."""
    digest = person_digest(KEYSET, "t", "customer", text)
    assert re.fullmatch(r"[A-Za-z0-9_-]{21}[AQgw]", digest)
    assert digest == person_digest(KEYSET, "t", "customer", text)


def test_one_person_in_several_spellings_is_one_person():
    """White space around an id and the Unicode form of its letters make nobody new; what is inside an id does."""
    same = {person_digest(KEYSET, "t", "customer", text) for text in ("Zoë 1", " Zoe\u0308 1\n", "\u00a0Zoë 1\u2001")}
    assert len(same) == 1
    assert person_digest(KEYSET, "t", "customer", "Zoë1") not in same
    assert person_digest(KEYSET, "t", "customer", "zoë 1") not in same


def test_people_of_different_spaces_tenants_and_keysets_are_different():
    """The same id in another space, tenant or installation can't be linked by its digest."""
    digests = {
        person_digest(KEYSET, "t", "customer", "42"),
        person_digest(KEYSET, "t", "employee", "42"),
        person_digest(KEYSET, "u", "customer", "42"),
        person_digest(KEYSET, "tc", "ustomer", "42"),
        person_digest(OTHER, "t", "customer", "42"),
    }
    assert len(digests) == 5


def test_a_lone_surrogate_has_a_digest_too():
    """No person is left uncounted, whatever an id looks like."""
    assert person_digest(KEYSET, "t", "customer", "\ud800") != person_digest(KEYSET, "t", "customer", "\ud801")


def test_digests_and_hashes_survive_the_rotation_of_the_primary():
    """After rotating, known people and credentials are still known, for they hang on the oldest enabled key."""
    again = rotate(ROTATED, random.Random(34).randbytes, 3.0)
    for keyset in (ROTATED, again):
        assert person_digest(keyset, "t", "customer", "42") == person_digest(KEYSET, "t", "customer", "42")
        assert credential_hash(keyset, "secret") == credential_hash(KEYSET, "secret")


def test_disabling_the_oldest_key_changes_digests_and_hashes():
    """The price of it, as the docs say: without the oldest key all people are new and no credential is known."""
    without = set_state(ROTATED, KEYSET.primary_id, KeyState.DISABLED)
    assert person_digest(without, "t", "customer", "42") != person_digest(KEYSET, "t", "customer", "42")
    assert not same_hash(credential_hash(without, "secret"), credential_hash(KEYSET, "secret"))


def test_a_credential_is_known_by_its_hash():
    """Same credential, same 32 bytes; any other credential or key gives others, and the hash holds no secret."""
    known = credential_hash(KEYSET, "s3cret-PLANTED")
    assert len(known) == 32
    assert same_hash(known, credential_hash(KEYSET, "s3cret-PLANTED"))
    assert not same_hash(known, credential_hash(KEYSET, "s3cret-PLANTEd"))
    assert not same_hash(known, credential_hash(OTHER, "s3cret-PLANTED"))
    assert not same_hash(known, known[:31])
    assert b"PLANTED" not in known


@given(st.text(), st.text(max_size=3), st.text(max_size=3), st.text(max_size=3))
def test_an_entity_tag_comes_back(etag, tenant, client, plan):
    """What the upstream sent, weak or strong, is what comes back to the same client under the same plan."""
    sealed = seal_etag(KEYSET, tenant, client, plan, etag)
    assert re.fullmatch(r'"[A-Za-z0-9_-]+"', sealed)
    assert open_etag(KEYSET, tenant, client, plan, sealed) == etag


def test_an_empty_and_an_odd_entity_tag_come_back():
    """Upstreams send anything: an empty tag and one with a lone surrogate are sealed too, for no answer may break."""
    for etag in ("", 'W/"x"', '"\u00e9"', "\ud800"):
        assert open_etag(KEYSET, "t", "c", "p", seal_etag(KEYSET, "t", "c", "p", etag)) == etag


@given(st.tuples(*[st.text(max_size=2)] * 3), st.tuples(*[st.text(max_size=2)] * 3))
def test_an_entity_tag_belongs_to_one_client_and_plan(issued, shown):
    """Another tenant, client or plan can't use it: the answer that it stood for may have looked different."""
    assume(issued != shown)
    sealed = seal_etag(KEYSET, *issued, ETAG)
    with pytest.raises(PreconditionFailed) as caught:
        open_etag(KEYSET, *shown, sealed)
    assert str(caught.value) == PreconditionFailed.title
    assert caught.value.__context__ is None


def test_a_changed_entity_tag_is_refused():
    """Forged, cut, weakened, unquoted or padded: all the same refusal."""
    sealed = seal_etag(KEYSET, "t", "c", "p", ETAG)
    changed = [sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :] for at in range(len(sealed))]
    for other in (*changed, *(sealed[:at] for at in range(len(sealed))), f"W/{sealed}", sealed.strip('"'),
                  sealed[:-1] + '="', "*", '""', '"', ETAG):  # fmt: skip
        with pytest.raises(PreconditionFailed):
            open_etag(KEYSET, "t", "c", "p", other)


def test_entity_tags_survive_a_rotation():
    """A tag that was given out before a rotation is still good after it."""
    assert open_etag(ROTATED, "t", "c", "p", seal_etag(KEYSET, "t", "c", "p", ETAG)) == ETAG
