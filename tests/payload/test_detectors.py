"""Values recognised by their look, and what must not be taken for them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples

from gharial.model.finding import Kind
from gharial.payload.detectors import DETECTORS, recognises


def seen(text: str) -> set[str]:
    return set(recognises(DETECTORS, Kind.STRING, text))


HITS = {
    "email": [
        "jo@x.org",
        "Jo.Do+tag@mail.example.co.uk",
        "write to jo@x.org, please",
        "<jo@x.org>",
        "jürgen@bücher.de",
        "jo@xn--bcher-kva.xn--p1ai",
        "jo [at] x.org",
        "jo (at) x (dot) org",
        "jo{AT}x[DOT]org",
        "\uff4a\uff4f\uff20\uff58\uff0e\uff4f\uff52\uff47",
        "jo\u200b@x\u00ad.org",
        "a" * 500 + "@x.org",
        "@jo@x.org",
    ],
    "phone": [
        "+49 171 1234567",
        "+1 (555) 123-4567",
        "+15551234567",
        "+91 98123 45678",
        "0049 171 1234567",
        "0171 1234567",
        "0171/123 45 67",
        "(040) 123 4567",
        "(555) 234-1234",
        "555-234-1234",
        "call 555.234.1234!",
        "tel:911234567",
        "\uff0b\uff14\uff19 \uff11\uff17\uff11 \uff11\uff12\uff13\uff14\uff15\uff16\uff17",
        "+\u0664\u0669 171 1234567",
        "+49\u2011171\u20111234567",
        "+49\u00a0171\u00a01234567",
    ],
    "card": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111\u20111111\u20111111\u20111111",
        "card: 378282246310005.",
        "3782 822463 10005",
        "5555555555554444 was charged",
        "2223003122003222",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
        "\uff14111111111111111",
        "\u0664111111111111111",
    ],
    "iban": [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "de89370400440532013000",
        "GB82 WEST 1234 5698 7654 32, thanks",
        "NO9386011117947",
        "to MT84MALT011000012345MTLCAST001S today",
        "DE89-3704-0044-0532-0130-00",
        "\uff24E89370400440532013000",
        "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000",
    ],
    "ip": ["192.168.1.77", "from 10.0.0.1:8080", "2001:db8::7", "[fe80::1]:443", "fe80::1%eth0", "::ffff:192.0.2.128x"],
}  # fmt: skip


@pytest.mark.parametrize(("detector", "text"), [(name, text) for name, texts in HITS.items() for text in texts])
def test_what_it_looks_like_is_recognised(detector: str, text: str) -> None:
    """Alone and in free text, in the usual spellings and in those made to be overlooked."""
    if text.endswith("128x"):
        text = text[:-1]
    assert detector in seen(text)
    assert detector in seen(f"{text} und mehr")
    assert detector in seen(f"Note: {text}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "user@localhost",
        "@handle",
        "icon@2x.png",
        "@scope/pkg@1.2.3",
        "a @ b . c",
        "look at x.org",
        "19.99",
        "1,234,567.89",
        "1.234.567,89",
        "20 000 000",
        "EUR 12 345 678",
        "ORD-2024-0012-3456",
        "SKU-0171-1234567",
        "INV/2024/0171/123456",
        "1234567890123",
        "919812345678",
        "4111111111111112",
        "9999999999999995",
        "0000000000000000",
        "20240506123456",
        "order 1700000000000",
        "550e8400-e29b-41d4-a716-446655440000",
        "12345678-1234-4234-8234-123456789012",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "2024-01-01T00:00:00+01:00",
        "2024-01-01 12:30:45",
        "12:30:45",
        "aa:bb:cc:dd:ee:ff",
        "978-3-16-148410-0",
        "4006381333931",
        "v1.2.3.4",
        "10.0.19045.1",
        "1.3.6.1.4.1",
        "256.1.1.1",
        "std::string",
        "::",
        "::1",
        "DE89370400440532013001",
        "XX89370400440532013000",
        "DE8937040044053201300",
        "DE893704004405320130001",
        "+12",
        "+1 234 567",
        "+0123456789012",
        "0 12 34 56",
        "007",
        "x+15551234567",
        "5.0171 1234567",
        "ETag W/0171-12",
    ],
)
def test_what_only_resembles_it_is_not(text: str) -> None:
    """Ids, prices, dates, versions, digests: redacting them would make a gateway useless."""
    assert seen(text) == set()


def test_of_numbers_only_cards_are_recognised() -> None:
    """A JSON number is a quantity or a card, never a phone; booleans and null are nothing."""
    assert recognises(DETECTORS, Kind.NUMBER, "4111111111111111") == {"card"}
    for text in ("4111111111111112", "41111111111111.11", "4.111111111111111e15", "-4111111111111111", "15551234567"):
        assert recognises(DETECTORS, Kind.NUMBER, text) == set()
    assert recognises(DETECTORS, Kind.BOOLEAN, "true") == recognises(DETECTORS, Kind.NULL, "") == set()
    with pytest.raises(KeyError):
        recognises(["shoe_size"], Kind.STRING, "44")


def test_random_digits_are_rarely_cards() -> None:
    """Of all numbers of 16 digits in a row about one in ten fits Luhn, and only known issuers count."""
    numbers = range(7_312_345_600_000_000, 7_312_345_600_001_000)
    assert not any("card" in seen(str(number)) for number in numbers)
    visas = [f"41234567{at:08d}" for at in range(1000)]
    assert sum("card" in seen(number) for number in visas) == 100


@pytest.mark.parametrize(
    "piece",
    ["a", "1", "1 ", "@", "a@", "(", " ", "[at", "DE89", "DE89 ", "+", "0171 ", "1.", ":", "a:", "4111 ", "+1 ", "+1()",
     "a.", "x@a.", "x@a-", "\u0663", "(555)", "<at", "tel:1 ", "\ufdfa", "a\u0301", "0 ", "00-", "1:", "[ at ]"],
)  # fmt: skip
def test_the_work_is_linear(piece: str) -> None:
    """A text made to be searched again and again takes no longer than its length."""

    def took(length: int) -> float:
        text = piece * (length // len(piece))
        started = time.process_time()
        seen(text)
        return time.process_time() - started

    assert took(80_000) < 20 * took(10_000) + 0.2


@given(st.text(max_size=60))
@settings(max_examples=examples(300))
def test_any_text_can_be_looked_at(text: str) -> None:
    """No text makes a detector fail, whatever scripts it mixes."""
    assert seen(text) <= set(DETECTORS)
