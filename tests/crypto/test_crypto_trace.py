"""For whom tokens were made is told of any text, for those who are tried, and of nothing that is not a token."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from gharial.crypto.keyset import KeyState, create_keyset, rotate, set_state
from gharial.crypto.token import Binding, seal_token
from gharial.crypto.trace import Stray, Traced, Tracer, Untraced, find_tokens, sample
from gharial.crypto.vault import write_token
from gharial.model.finding import Kind

KEYSET = create_keyset(random.Random(31).randbytes, 1.0)
ACME = Binding("default", "account", "client", "acme")
RIVAL = Binding("default", "account", "client", "rival")
TEAM = Binding("default", "email", "team", "sales")
EVERYBODY = Binding("default", "email", "all", "")
CANDIDATES = (ACME, RIVAL, TEAM, EVERYBODY)


def made_for(binding: Binding, text: str = "4711", keyset=KEYSET) -> bytes:
    return seal_token(keyset, binding, Kind.STRING, text).encode()


@given(st.data(), st.lists(st.sampled_from([b'{"a":"', b'","b":', b"\n", b"tok_", b"to", b" ", b"x,"])))
def test_tokens_are_found_wherever_the_text_is_cut(data, noise):
    """However a text comes in pieces, the same tokens are found, in their order."""
    tokens = [made_for(ACME, "4" * n) for n in (0, 1, 40)]
    text = b"".join(part + b" " + token + b"|" for token, part in zip(tokens, [*noise, b"", b"", b""], strict=False))
    text += b'"tok_short tok_'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert list(find_tokens(pieces)) == tokens


def test_a_run_without_end_is_held_in_no_memory():
    """Of a text that goes on as one token for ever, no more than the longest token is kept, in linear time."""
    found = find_tokens(b"tok_" * 250_000 for _ in range(8))
    assert max(map(len, found)) <= 128 * 1024 + 4


def test_each_token_names_whom_it_was_made_for():
    """Client, team and everybody are told apart, with tag and key, whatever was traced before."""
    keyset = rotate(KEYSET, random.Random(5).randbytes, 2.0)
    tracer = Tracer(keyset, CANDIDATES)
    for binding in (ACME, RIVAL, ACME, TEAM, EVERYBODY):
        assert tracer.trace(made_for(binding)) == Traced(binding, KEYSET.primary_id)
        assert tracer.trace(made_for(binding, keyset=keyset)) == Traced(binding, keyset.primary_id)


def test_what_names_nobody_says_why():
    """Forged, of somebody who is not tried, of an unknown or destroyed key, no token at all: each by its own name."""
    keyset = rotate(KEYSET, random.Random(5).randbytes, 2.0)
    other = create_keyset(random.Random(6).randbytes, 1.0)
    token = made_for(ACME)
    tracer = Tracer(keyset, CANDIDATES)
    forged = token[:-2] + (b"AA" if token[-2:] != b"AA" else b"BA")
    assert tracer.trace(forged).why in {Stray.FITS_NOBODY, Stray.NO_TOKEN}
    stranger = made_for(Binding("default", "account", "client", "stranger"))
    assert tracer.trace(stranger) == Untraced(Stray.FITS_NOBODY, KEYSET.primary_id)
    assert tracer.trace(made_for(ACME, keyset=other)) == Untraced(Stray.UNKNOWN_KEY, other.primary_id)
    assert tracer.trace(b"tok_" + b"z" * 60) == Untraced(Stray.NO_TOKEN)
    destroyed = set_state(keyset, KEYSET.primary_id, KeyState.DESTROYED)
    assert Tracer(destroyed, CANDIDATES).trace(token) == Untraced(Stray.DESTROYED_KEY, KEYSET.primary_id)


def test_tokens_from_the_vault_are_told_apart():
    """They are found, also where they end the text, and nothing about a recipient is in them."""
    token = write_token(bytes(range(16))).encode()
    assert list(find_tokens([b"a " + token[:9], token[9:]])) == [token]
    assert Tracer(KEYSET, CANDIDATES).trace(token) == Untraced(Stray.FROM_VAULT)


def test_what_a_disabled_key_sealed_is_traced():
    """A key is often disabled because of the leak; its tokens still name the client, and stay refused elsewhere."""
    keyset = set_state(rotate(KEYSET, random.Random(5).randbytes, 2.0), KEYSET.primary_id, KeyState.DISABLED)
    assert Tracer(keyset, CANDIDATES).trace(made_for(ACME)) == Traced(ACME, KEYSET.primary_id)
    assert keyset.keys[0].state is KeyState.DISABLED


def test_a_sample_holds_distinct_tokens_whatever_their_order():
    """Repeated ones count once; which are kept hangs on the secret and not on where they stand."""
    tokens = [made_for(ACME, str(n)) for n in range(50)]
    count, kept = sample([*tokens, *tokens[:30]], 10, b"secret")
    assert (count, len(set(kept))) == (80, 10)
    assert set(sample([*reversed(tokens)], 10, b"secret")[1]) == set(kept)
    assert set(sample(tokens, 10, b"another")[1]) != set(kept)
    assert set(sample(tokens, 99, b"secret")[1]) == set(tokens)
