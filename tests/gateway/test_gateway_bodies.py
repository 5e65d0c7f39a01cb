"""What an upstream may answer, hostile or not, through a whole gateway: rewritten or refused, never clear."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from datetime import date

import brotli
import pytest
import pytest_asyncio
from support.envoy_harness import Answer, Torn
from support.gateway import (
    MARK,
    Api,
    Home,
    a_gateway,
    customer,
    customer_id,
    people_in_clear,
    shows,
)
from support.upstreams import Raw, Upstream, an_upstream, answer, chunked, json_answer

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.xdist_group("gateway-bodies"),
    pytest.mark.asyncio(loop_scope="module"),
]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd.compress}
LIMIT = 20_000
ONE = f"/customers/{customer_id(1)}"
CLEAR = json.dumps(customer(1))
JSON = "content-type: application/json"


class World:
    """One gateway for this module, its upstream, and a key each for who may see much and who may not."""

    def __init__(self, home: Home, api: Api, upstream: Upstream, *keys: str) -> None:
        self.home, self.api, self.upstream = home, api, upstream
        self.auditor, self.acme, self.globex, self.lab = keys

    async def answered(self, raw: Raw, *headers: str, key: str = "", method: str = "GET") -> Answer:
        """Let the upstream answer with these bytes, once, and return what reaches the client."""
        self.api.answers["/any/x"] = raw
        return await self.home.get("/any/x", *headers, key=key, method=method)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_world() -> AsyncIterator[World]:
    api = Api()
    async with (
        an_upstream(api) as upstream,
        a_gateway({"api": {"url": upstream.url}}, limits={"body": LIMIT, "values": 3000}) as home,
    ):
        yield World(
            home,
            api,
            upstream,
            await home.add_client("auditor", roles=["auditor"]),
            await home.add_client("acme-billing", purpose="billing"),
            await home.add_client("acme-other", purpose="billing"),
            await home.add_client("lab-one", roles=["lab"], purpose="study"),
        )


@pytest.fixture
def world(the_world: World) -> Iterator[World]:
    """The gateway; after the test no file of it may hold anything planted."""
    the_world.api.answers.clear()
    the_world.upstream.seen.clear()
    yield the_world
    the_world.home.look_for_leaks()


def padded(size: int) -> bytes:
    """A record of exactly this many bytes, whose last field fills it up."""
    record = {**customer(1), "plan": ""}
    record["plan"] = "p" * (size - len(json.dumps(record)))
    data = json.dumps(record).encode()
    assert len(data) == size
    return data


def refused(reply: Answer, status: int, code: str) -> None:
    """The answer is a problem of this kind that names nothing."""
    assert (reply.status, reply.code) == (status, code)
    assert set(reply.problem()) <= {"type", "title", "status", "code", "exchange"}
    assert not shows(reply)


# --- what a caller sees ------------------------------------------------------------------------------------------


async def test_without_a_credential_a_record_tells_nothing_of_a_person(world: World):
    """Anonymous: public fields, a token, redactions; the field that nobody listed is gone, and so is every header."""
    world.api.answers[ONE] = json_answer(
        CLEAR, f"x-person: {MARK}", f"set-cookie: who={MARK}", f"link: </{MARK}>", f"content-disposition: {MARK}"
    )
    reply = await world.home.get(ONE)
    document = json.loads(reply.body)
    assert reply.status == 200
    assert not shows(reply)
    assert (document["plan"], document["lines"], document["fullName"]) == ("magenta", 2, "[redacted]")
    assert "note" not in document


async def test_who_may_see_sees(world: World):
    """An auditor gets the granted fields verbatim, and still not what was not granted."""
    reply = await world.home.get(ONE, key=world.auditor)
    document = json.loads(reply.body)
    given = customer(1)
    for granted in ("customerId", "fullName", "email", "accountNumber", "plan"):
        assert document[granted] == given[granted]
    assert document["dob"] != given["dob"]
    assert "note" not in document


async def test_useful_to_a_lab_and_useless_to_a_thief(world: World):
    """Shifted dates of one person move alike in every answer; account numbers keep their form; nothing is clear."""
    world.api.answers["/any/x"] = json_answer(
        json.dumps([{**customer(1), "dob": "1979-11-23"}, {**customer(1), "dob": "1999-11-23"}, customer(2)])
    )
    first = await world.home.get("/any/x", key=world.lab)
    world.api.answers["/any/x"] = json_answer(json.dumps([customer(1)]))
    again = await world.home.get("/any/x", key=world.lab)
    assert not shows(first)
    assert not shows(again)
    (one, same, other), (later,) = json.loads(first.body), json.loads(again.body)
    given = date.fromisoformat(customer(1)["dob"])
    moved = date.fromisoformat(one["dob"]) - given
    assert 1 <= abs(moved.days) <= 30
    assert date.fromisoformat(same["dob"]) - date(1999, 11, 23) == moved
    assert later["dob"] == one["dob"]
    account = str(customer(1)["accountNumber"])
    assert (len(one["accountNumber"]), one["accountNumber"].isdigit()) == (len(account), True)
    assert one["accountNumber"] == same["accountNumber"] == later["accountNumber"] != account
    assert one["accountNumber"] != other["accountNumber"]
    assert one["fullName"].startswith("enc_")
    assert one["fullName"] != same["fullName"]
    assert one["email"] == later["email"] != other["email"]


async def test_a_token_comes_back_and_only_from_its_own_client(world: World):
    """The partner's token leads upstream to the real id; another client's is refused, and nothing is asked."""
    token = json.loads((await world.home.get(ONE, key=world.acme)).body)["customerId"]
    world.upstream.seen.clear()
    back = await world.home.get(f"/customers/{token}", key=world.acme)
    assert back.status == 200
    assert json.loads(back.body)["customerId"] == token
    assert [seen.target for seen in world.upstream.seen] == [ONE]
    refused(await world.home.get(f"/customers/{token}", key=world.globex), 400, "token.refused")
    assert len(world.upstream.seen) == 1


async def test_our_key_and_control_headers_do_not_reach_the_upstream(world: World):
    """The API key, forged verdicts and headers that would choose another path stay here."""
    forged = ["gharial-policy: none", "x-original-url: /open/x", "x-http-method-override: PUT", "x-envoy-retry-on: 5xx"]
    await world.home.get(ONE, *forged, "accept-encoding: br, gzip", key=world.auditor)
    (seen,) = world.upstream.seen
    assert world.auditor not in seen.text()
    for name in ("x-api-key", *(line.partition(":")[0] for line in forged)):
        assert seen.all(name) == []
    assert seen.all("accept-encoding") == ["gzip"]


async def test_what_other_proxies_add_to_an_answer_stays_here(world: World):
    """An upstream behind an Envoy, a cache or a CDN: its headers are removed, and the call does not fail for them."""
    names = ["x-envoy-upstream-service-time", "x-envoy-decorator-operation", "via", "x-cache", "age", "alt-svc"]
    reply = await world.answered(json_answer(CLEAR, *(f"{name}: {MARK}" for name in names)))
    assert reply.status == 200
    assert all(reply.all(name) == [] for name in names)
    assert not shows(reply)


# --- broken and hostile bodies -----------------------------------------------------------------------------------

HOSTILE = {
    "not-json": f"<p>{MARK}</p>".encode(),
    "cut-off": CLEAR.encode()[:-1],
    "rubbish-behind": CLEAR.encode() + b"x",
    "two-documents": CLEAR.encode() * 2,
    "two-lines": CLEAR.encode() + b"\n" + CLEAR.encode(),
    "utf-16 behind utf-8": CLEAR.encode() + CLEAR.encode("utf-16"),
    "latin-1": CLEAR.replace("magenta", "mag\xe9nta").encode("latin-1"),
    "nan": CLEAR.replace(": 2,", ": NaN,").encode(),
    "single-quotes": CLEAR.replace('"', "'").encode(),
    "comment": b"/*" + MARK.encode() + b"*/" + CLEAR.encode(),
    "trailing-comma": CLEAR.encode()[:-1] + b",}",
    "raw-newline-in-text": CLEAR.replace("magenta", "mag\nenta").encode(),
    "nul-behind": CLEAR.encode() + b"\0",
    "name-twice": b'{"plan":"a","plan":"' + MARK.encode() + b'"}',
    "name-twice-by-escape": b'{"email":"a","\\u0065mail":"' + MARK.encode() + b'"}',
    "brackets": b"[" * 9_990 + b"]" * 9_990,
    "open-brackets": b"[" * 19_000,
    "deep-objects": b'{"a":' * 100 + b'"' + MARK.encode() + b'"' + b"}" * 100,
    "many-values": b"[" + b"1," * 4_000 + b"1]",
}


@pytest.mark.parametrize("who", ["anonymous", "auditor"])
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_body_that_is_not_one_readable_document_is_refused(world: World, name: str, who: str):
    """Each ends as a problem, for whoever asks, and none of its bytes leaves."""
    raw = answer("200 OK", HOSTILE[name], "content-type: application/json")
    reply = await world.answered(raw, key=world.auditor if who == "auditor" else "")
    assert reply.status == 502
    refused(reply, 502, reply.code)
    assert reply.code.startswith("body.")


TRICKS = {
    "escaped-name": b'{"\\u0065\\u006dail":"%s","ma\\u0069l":"%s"}',
    "other-case": b'{"EMAIL":"%s","FullName":"%s"}',
    "json-in-a-string": b'{"plan2":"{\\"email\\":\\"%s\\"}","x":"%s"}',
    "value-as-name": b'{"%s":1,"x":{"%s":{}}}',
    "deep-in-arrays": b'[[[[{"email":"%s"}]]],{"a":{"fullName":["%s",{"x":1}]}}]',
    "no-object": b'["%s","%s"]',
    "text-alone": b'"%s%s"',
    "object-where-text-was": b'{"email":{"address":"%s","x":["%s"]}}',
    "number-where-text-was": b'{"email":4815162342,"fullName":{"first":"%s","more":["%s"]}}',
    "byte-order-mark": b'\xef\xbb\xbf{"email":"%s","x":"%s"}',
    "split-surrogates": b'{"fullName":"\\ud83d%s","x":"\\ude00%s"}',
    "space-in-name": b'{" email":"%s","email ":"%s"}',
    "lookalike-name": b'{"\\u0435mail":"%s","\\uff45mail":"%s"}',
    "nul-in-name": b'{"email\\u0000":"%s","\\u0000email":"%s"}',
}


@pytest.mark.parametrize("name", TRICKS)
async def test_no_shape_of_a_readable_document_hides_a_value(world: World, name: str):
    """Escapes, other cases, nesting, values as names: read as the JSON they are, or dropped as unlisted."""
    body = TRICKS[name].replace(b"%s", MARK.encode())
    reply = await world.answered(answer("200 OK", body, "content-type: application/json"))
    assert reply.status in (200, 502)
    assert not shows(reply)
    assert b"4815162342" not in reply.body


async def test_a_hundred_thousand_brackets_are_refused(world: World):
    """Also where their number alone is over the limit: refused as too large, and the gate lives on."""
    body = b"[" * 100_000
    refused(await world.answered(answer("200 OK", body, "content-type: application/json")), 502, "body.too_large")
    assert (await world.home.get(ONE)).status == 200


@pytest.mark.parametrize("framing", ["announced", "chunked", "until-close"])
async def test_the_limit_of_a_body_is_exact_however_it_is_framed(world: World, framing: str):
    """As many bytes as `limits.body` pass, rewritten; one more is refused, and so is very much more."""

    def framed(body: bytes) -> Raw:
        if framing == "announced":
            return answer("200 OK", body, "content-type: application/json")
        if framing == "chunked":
            return chunked([body[:100], body[100:]], "content-type: application/json")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
        return Raw(head + body, then_close=True)

    fits = await world.answered(framed(padded(LIMIT)))
    assert fits.status == 200
    assert not shows(fits)
    assert len(json.loads(fits.body)["plan"]) > 19_000
    refused(await world.answered(framed(padded(LIMIT + 1))), 502, "body.too_large")
    refused(await world.answered(framed(padded(LIMIT + 300_000))), 502, "body.too_large")


@pytest.mark.parametrize(
    "kind",
    [
        "text/html",
        "text/plain",
        "application/xml",
        "application/octet-stream",
        "application/x-protobuf",
        "text/csv; header=absent",
        "application/vnd.ms-excel",
        "multipart/form-data; boundary=x",
        "application/json, text/html",
        "application/json; charset=utf-16",
        "application/json;charset=utf-7",
        "application/jsonp",
        "",
    ],
)
async def test_a_kind_that_cannot_be_read_is_refused_whatever_is_in_it(world: World, kind: str):
    """No reader, no answer: also where the bytes are JSON all the same."""
    headers = [f"content-type: {kind}"] if kind else []
    refused(await world.answered(answer("200 OK", CLEAR.encode(), *headers)), 502, "media.unreadable")


async def test_a_content_type_that_lies_is_not_believed(world: World):
    """HTML, images and gzip that call themselves JSON are read as JSON, which they are not."""
    for body in (f"<b>{MARK}</b>".encode(), b"\x89PNG" + MARK.encode(), gzip.compress(CLEAR.encode())):
        raw = answer("200 OK", body, "content-type: application/json")
        refused(await world.answered(raw), 502, "body.malformed")
    two = answer("200 OK", CLEAR.encode(), "content-type: application/json", "content-type: text/html")
    refused(await world.answered(two), 502, "media.unreadable")


@pytest.mark.parametrize("coding", ["compress", "gzip;q=1", "x", "identity, dcb", "br, br, br, br"])
async def test_a_coding_that_is_not_undone_is_refused(world: World, coding: str):
    """Whether it is what it says or plain text, it does not pass."""
    for body in (CLEAR.encode(), zlib.compress(CLEAR.encode()), gzip.compress(CLEAR.encode())):
        raw = answer("200 OK", body, "content-type: application/json", f"content-encoding: {coding}")
        refused(await world.answered(raw, "accept-encoding: br, zstd, gzip"), 502, "coding.unknown")


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, br", "deflate, zstd, gzip"])
async def test_each_coding_is_undone_though_nobody_asked_for_it(world: World, coding: str):
    """What leaves is readable and rewritten; a body that is something else than it says does not leave."""
    body = CLEAR.encode()
    for one in coding.split(", "):
        body = PACK[one](body)
    head = ("content-type: application/json", f"content-encoding: {coding}")
    reply = await world.answered(answer("200 OK", body, *head), "accept-encoding: identity")
    assert (reply.status, reply.one("content-encoding")) == (200, None)
    assert json.loads(reply.body)["plan"] == "magenta"
    assert not shows(reply)
    assert world.upstream.seen[-1].all("accept-encoding") == ["identity"]
    for bad in (body[:-1], body + b"\0", CLEAR.encode()):
        refused(await world.answered(answer("200 OK", bad, *head)), 502, "coding.malformed")


async def test_json_in_every_encoding_of_unicode_is_rewritten(world: World):
    """UTF-16 and UTF-32 come out as UTF-8 without a charset; a label that contradicts the bytes is refused."""
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"):
        body = CLEAR.encode(encoding)
        for name in ("", "; charset=" + encoding.removesuffix("-sig").replace("-le", "le").replace("-be", "be")):
            reply = await world.answered(answer("200 OK", body, f"content-type: application/json{name}"))
            assert (reply.status, reply.one("content-type")) == (200, "application/json")
            assert json.loads(reply.body.decode("utf-8"))["plan"] == "magenta"
            assert not shows(reply)
        wrong = "utf-32le" if "16" in encoding else "utf-16le"
        refused(
            await world.answered(answer("200 OK", body, f"content-type: application/json; charset={wrong}")),
            502,
            "media.unreadable",
        )
    for before, after in ((")]}',\n", ""), ("callback(", ");")):
        wrapped = answer("200 OK", f"{before}{CLEAR}{after}".encode(), "content-type: application/json")
        refused(await world.answered(wrapped), 502, "body.wrapped")


async def test_gzip_is_undone_and_checked_to_its_last_byte(world: World):
    """A gzip answer comes out readable and rewritten; broken, doubled, padded and bloated ones don't come out."""

    def zipped(data: bytes) -> Raw:
        return answer("200 OK", data, "content-type: application/json", "content-encoding: gzip")

    good = gzip.compress(CLEAR.encode())
    reply = await world.answered(zipped(good), "accept-encoding: gzip")
    assert reply.status == 200
    assert json.loads(reply.body)["plan"] == "magenta"
    assert not shows(reply)
    for bad in (good[:-1], good + b"\0", good[:-8] + bytes(8), CLEAR.encode()):
        refused(await world.answered(zipped(bad)), 502, "coding.malformed")
    refused(await world.answered(zipped(gzip.compress(padded(LIMIT + 1)))), 502, "body.too_large")
    refused(await world.answered(zipped(good + good)), 502, "body.malformed")


# --- bodies of rows ----------------------------------------------------------------------------------------------

NAMES = ["customerId", "fullName", "email", "dob", "accountNumber", "plan", "lines", "note"]


def in_rows(kind: str, *numbers: int) -> bytes:
    """Customers in one of the formats."""
    people = [customer(number) for number in numbers]
    match kind:
        case "application/x-ndjson":
            return "".join(json.dumps(one) + "\n" for one in people).encode()
        case "application/json-seq":
            return "".join("\x1e" + json.dumps(one) + "\n" for one in people).encode()
        case "text/event-stream":
            events = (f": {MARK}\nid: {MARK}\nevent: changed\ndata: {json.dumps(one)}\n\n" for one in people)
            return "".join(events).encode()
        case _:
            out = io.StringIO()
            writer = csv.writer(out, delimiter="," if kind == "text/csv" else "\t")
            writer.writerows([NAMES, *([one.get(name, "") for name in NAMES] for one in people)])
            return out.getvalue().encode()


KINDS = ["application/x-ndjson", "application/json-seq", "text/event-stream", "text/csv", "text/tab-separated-values"]


@pytest.mark.parametrize("kind", KINDS)
async def test_rows_are_rewritten_one_by_one(world: World, kind: str):
    """Public fields are there for everybody, people only for those who may; however the upstream cuts it in chunks."""
    body = in_rows(kind, 1, 2, 3)
    pieces = [body[at : at + 97] for at in range(0, len(body), 97)]
    for raw in (answer("200 OK", body, f"content-type: {kind}"), chunked(pieces, f"content-type: {kind}")):
        reply = await world.answered(raw)
        assert reply.status == 200
        assert reply.body.count(b"magenta") == 3
        assert b"note" not in reply.body
        assert not shows(reply)
        assert people_in_clear((await world.answered(raw, key=world.auditor)).body) == {1, 2, 3}
    assert (reply.one("content-type") or "").startswith(kind)
    packed = gzip.compress(body)
    coded = await world.answered(answer("200 OK", packed, f"content-type: {kind}", "content-encoding: gzip"))
    assert coded.body == reply.body


@pytest.mark.parametrize("kind", KINDS)
async def test_one_bad_row_lets_none_through(world: World, kind: str):
    """Cut off, half, of another format, or one too many: the whole answer is refused, for whoever asks."""
    good = in_rows(kind, 1, 2)
    bad = [good[:-60], good + b"{", good + MARK.encode() + b',"', good + b"\xff\n", good + b'"' + MARK.encode()]
    for body in bad:
        raw = answer("200 OK", body, f"content-type: {kind}")
        for key in ("", world.auditor):
            refused(await world.answered(raw, key=key), 502, "body.malformed")
    many = good * 20 if "json" in kind or "event" in kind else good + good.split(b"\n", 1)[1] * 100
    refused(await world.answered(answer("200 OK", many * 3, f"content-type: {kind}")), 502, "body.too_large")


async def test_a_table_without_its_header_is_refused(world: World):
    """The first customer would be the names of the columns, which nothing protects."""
    body = in_rows("text/csv", 1, 2).split(b"\n", 1)[1]
    refused(await world.answered(answer("200 OK", body, "content-type: text/csv")), 502, "body.malformed")


# --- what HTTP allows besides ------------------------------------------------------------------------------------


async def test_head_tells_nothing_not_even_a_length(world: World):
    """HEAD has no body, and the length of the clear one is not told."""
    raw = Raw(
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(CLEAR)}\r\n"
        f'x-name: {MARK}\r\netag: "{MARK}"\r\n\r\n'.encode()
    )
    reply = await world.answered(raw, method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.one("content-length") != str(len(CLEAR))
    assert not shows(reply)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_an_answer_without_a_body_passes_without_its_headers(world: World, status: str):
    """204 and 304 keep their status; what they say in headers stays here."""
    raw = answer(status, b"", f"x-name: {MARK}", f'etag: "{MARK}"', "last-modified: now", length=False)
    reply = await world.answered(raw)
    assert (reply.status, reply.body) == (int(status[:3]), b"")
    assert not shows(reply)


async def test_trailers_and_early_answers_do_not_pass(world: World):
    """What comes before or behind the answer proper is not read by any plan, so it stays here."""
    trailing = chunked(
        [CLEAR.encode()], "content-type: application/json", "trailer: x-name", trailers=(f"x-name: {MARK}",)
    )
    reply = await world.answered(trailing, "te: trailers")
    assert reply.status == 200
    assert not shows(reply)
    for early in ("100 Continue", "102 Processing", "103 Early Hints"):
        raw = json_answer(CLEAR)
        hinted = Raw(f"HTTP/1.1 {early}\r\nlink: </{MARK}>; rel=preload\r\nx-name: {MARK}\r\n\r\n".encode() + raw.data)
        world.api.answers["/any/x"] = hinted
        data = await world.home.raw(b"GET /any/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert not shows(data)


async def test_another_protocol_is_not_switched_to(world: World):
    """An upgrade would end all reading; whether asked for or forced upon the client, nothing passes."""
    switched = Raw(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" + MARK.encode()
    )
    h2c = ["connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA"]
    for ask in ([], ["connection: upgrade", "upgrade: websocket"], h2c):
        world.api.answers["/any/x"] = switched
        lines = "\r\n".join(["GET /any/x HTTP/1.1", "host: a", *ask, "", ""])
        reply = await world.home.first_answer(lines.encode())
        refused(reply, reply.status, reply.code)


async def test_a_status_line_carries_no_text_of_the_upstream(world: World):
    """The reason phrase is free text, also behind a made-up status: ours is written instead."""
    for status in (f"200 {MARK}", f"299 {MARK}", f"404 {MARK}", f"599 {MARK}"):
        world.api.answers["/any/x"] = json_answer(CLEAR, status=status)
        data = await world.home.raw(b"GET /any/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert data.startswith(b"HTTP/1.1 " + status[:3].encode())
        assert not shows(data)


@pytest.mark.parametrize("status", ["300", "400", "401", "404", "409", "422", "500", "503"])
async def test_an_error_of_the_upstream_keeps_its_status_and_tells_nothing(world: World, status: str):
    """A JSON error is rewritten like any answer; a page of HTML is replaced."""
    told = await world.answered(json_answer(CLEAR, status=f"{status} X"))
    assert told.status == int(status)
    assert json.loads(told.body)["plan"] == "magenta"
    assert not shows(told)
    page = await world.answered(answer(f"{status} X", f"<b>{MARK}</b>".encode(), "content-type: text/html"))
    assert page.status == int(status)
    assert not shows(page)
    broken = await world.answered(answer(f"{status} X", CLEAR.encode()[:-1], "content-type: application/json"))
    assert broken.status >= 400
    assert not shows(broken)


async def test_a_part_of_a_body_is_refused(world: World):
    """206 is not asked for (ranges are removed), and not passed on if it comes."""
    part = answer("206 Partial Content", CLEAR.encode(), "content-type: application/json", "content-range: bytes 0-1/2")
    refused(await world.answered(part, "range: bytes=0-1"), 502, "body.partial")
    assert world.upstream.seen[-1].all("range") == []


async def test_an_entity_tag_is_for_its_caller_alone(world: World):
    """The clear ETag never leaves; the one given in its place works in If-Match for this caller, and for no other."""
    world.api.answers[ONE] = json_answer(CLEAR, f'etag: "{MARK}"', "last-modified: Mon, 01 Jan 2024 00:00:00 GMT")
    first = await world.home.get(ONE, key=world.acme)
    tag = first.one("etag")
    assert tag is not None
    assert not shows(first)
    assert first.one("last-modified") is None
    world.upstream.seen.clear()
    mine = await world.home.get(ONE, JSON, f"if-match: {tag}", key=world.acme, method="PUT", body=b"{}")
    assert mine.status == 200
    assert world.upstream.seen[-1].all("if-match") == [f'"{MARK}"']
    refused(
        await world.home.get(ONE, JSON, f"if-match: {tag}", key=world.globex, method="PUT", body=b"{}"),
        412,
        "request.precondition",
    )
    refused(
        await world.home.get(ONE, JSON, f'if-match: "{MARK}"', key=world.acme, method="PUT", body=b"{}"),
        412,
        "request.precondition",
    )
    assert len(world.upstream.seen) == 1
    await world.home.get(ONE, f"if-none-match: {tag}", 'if-none-match: "guess"', key=world.acme)
    assert world.upstream.seen[-1].all("if-none-match") == []


async def test_redirects_that_name_the_upstream_lead_back_here_and_name_nobody(world: World):
    """The upstream's address never leaves; ids become tokens; a redirect elsewhere, or with a query, is withheld."""
    url = world.upstream.url
    for location in (f"{url}{ONE}", ONE):
        reply = await world.answered(answer("302 Found", b"", f"location: {location}"), key=world.acme)
        assert reply.status == 302
        assert (reply.one("location") or "").startswith("/customers/")
        assert not shows(reply)
        back = await world.home.get(str(reply.one("location")), key=world.acme)
        assert back.status == 200
    withheld = [
        f"https://elsewhere.example/{MARK}",
        f"//elsewhere.example/{MARK}",
        f"{ONE}?name={MARK}",
        f"{ONE}#{MARK}",
        f"/nowhere/{MARK}",
        f"/open/../customers/{MARK}",
        f"/open/{MARK}",
        f"/any/customers/{MARK}",
        f"/any/..%2f{MARK}",
        f"relative/{MARK}",
        f"javascript:{MARK}",
    ]
    for location in withheld:
        reply = await world.answered(answer("302 Found", b"", f"location: {location}"), key=world.acme)
        assert reply.status == 302
        assert reply.all("location") == []
        assert not shows(reply)


async def test_an_answer_that_breaks_off_is_an_error_and_not_a_part(world: World):
    """A body shorter than announced, or a chunk cut off, is never handed on as far as it came."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    cut = [
        head + b"content-length: 5000\r\n\r\n" + CLEAR.encode(),
        head + b"transfer-encoding: chunked\r\n\r\n" + b"fff\r\n" + CLEAR.encode(),
        head + b"content-length: 5\r\ncontent-length: 7\r\n\r\n" + CLEAR.encode(),
        head + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + CLEAR.encode(),
        head + b"x-name: " + MARK.encode(),
        MARK.encode() * 10 + b"\r\n\r\n",
        head + b"x-large: " + MARK.encode() * 5_000 + b"\r\n\r\n",
    ]
    for data in cut:
        reply = await world.answered(Raw(data, then_close=True))
        assert reply.status in (502, 503)
        refused(reply, reply.status, reply.code)


async def test_bytes_behind_an_answer_reach_nobody(world: World):
    """What an upstream writes beyond its content length is not the next client's answer."""
    raw = json_answer('{"plan":"a"}')
    world.api.answers["/any/x"] = Raw(raw.data + json_answer(f'{{"plan":"{MARK}"}}').data)
    for _ in range(5):
        reply = await world.home.get("/any/x")
        assert not shows(reply)
        assert reply.status in (200, 502, 503)


# --- what a thief with curl tries --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "//customers/{id}",
        "/open/../customers/{id}",
        "/open/%2e%2e/customers/{id}",
        "/open/..%2fcustomers/{id}",
        "/open/..%5ccustomers/{id}",
        "/open/..;/customers/{id}",
        "/Customers/{id}",
        "/customers/{id}/",
        "/customers/{id};a=b",
        "/customers/{id}%00",
        "/customers/{id}?callback=f",
        "/customers/{id}%3fx",
        "/%63ustomers/{id}",
        "/./customers/./{id}",
        "/customers//{id}",
        "/customers\\{id}",
        "http://127.0.0.1/customers/{id}",
        "http://user@elsewhere.example/customers/{id}",
        "/customers/{id}#/open/x",
        "*",
    ],
)
async def test_no_spelling_of_a_path_leads_past_the_policy(world: World, target: str):
    """Whatever path the upstream is finally asked for, what comes back is protected or refused."""
    world.api.answers.update({f"/customers/{customer_id(1)}{end}": json_answer(CLEAR) for end in ("/", ";a=b", "%00")})
    for opened in ("/open/..%2fcustomers", "/open/..;/customers"):
        world.api.answers[f"{opened}/{customer_id(1)}"] = json_answer('{"nothing": 1}')
    head = f"GET {target.replace('{id}', customer_id(1))} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    reply = await world.home.first_answer(head.encode())
    assert not shows(reply)
    assert all(not seen.target.startswith("/open/../") for seen in world.upstream.seen)


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get", "CONNECT"])
async def test_a_method_without_a_route_finds_nothing(world: World, method: str):
    """A method that no route names does not reach the upstream."""
    target = "a:80" if method == "CONNECT" else ONE
    reply = await world.home.first_answer(f"{method} {target} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
    refused(reply, reply.status, reply.code)
    assert world.upstream.seen == []


async def test_smuggled_and_malformed_requests_are_refused(world: World):
    """Two lengths, two framings, HTTP/1.0, no host, a head without end: read in one way only, or not at all."""
    get = f"GET {ONE} HTTP/1.1\r\nhost: a\r\n".encode()
    inner = b"GET /open/x HTTP/1.1\r\nhost: a\r\n\r\n"
    bad = [
        get + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
        get + b"content-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        get + b"transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        get + b"x_api_key: abc\r\n\r\n",
        f"GET {ONE} HTTP/1.0\r\nhost: a\r\n\r\n".encode(),
        get + b"x-a: " + b"a" * 200_000 + b"\r\n\r\n",
        f"GET {ONE} HTTP/1.1\r\n\r\n".encode(),
        f"GET /{MARK}".encode() + b" x y\r\n\r\n",
    ]
    for data in bad:
        with contextlib.suppress(Torn):
            reply = await world.home.first_answer(data)
            assert 400 <= reply.status <= 501
            assert not shows(reply)
    assert all(seen.target == ONE for seen in world.upstream.seen)


async def test_a_wrong_credential_is_never_taken_for_none(world: World):
    """Forged, empty, doubled and somebody else's: refused before the upstream is asked."""
    for lines in (["x-api-key: ghk_forged"], ["x-api-key:"], ["x-api-key: " + "k" * 300], [f"x-api-key: {MARK}"]):
        reply = await world.home.get(ONE, *lines)
        refused(reply, 401, "identity.unknown_credential")
        assert reply.one("www-authenticate")
    refused(await world.home.get(ONE, "x-api-key: a", key=world.acme), 400, "identity.ambiguous")
    assert world.upstream.seen == []


async def test_two_calls_on_one_connection_are_two_exchanges(world: World):
    """Pipelined behind one that may see, a second call without a credential sees nothing."""
    ask = f"GET {ONE} HTTP/1.1\r\nhost: a\r\n"
    data = await world.home.raw(
        (ask + f"x-api-key: {world.auditor}\r\n\r\n" + ask + "connection: close\r\n\r\n").encode()
    )
    first, second = data.split(b"HTTP/1.1 200 OK")[1:]
    assert people_in_clear(first) == {1}
    assert not shows(second)


async def test_the_counter_of_bytes_without_a_plan_reads_zero(world: World):
    """After all this, nothing left an enforced route without a plan, and no part had to be restarted."""
    await world.home.get(ONE)
    status = await world.home.status()
    assert status["counters"]["bytes_without_plan"] == 0
    assert status["adapter"]["crashed"] == 0
    assert status["in_flight"] == 0
    assert [part.restarts for part in world.home.parts().values()] == [0, 0]


async def test_an_audit_line_says_who_and_what_and_no_value(world: World):
    """The record of a call names client, route, policy and techniques; the person is a digest."""
    before = len(world.home.audit())
    reply = await world.home.get(ONE, key=world.auditor)
    line = world.home.audit()[before]
    text = json.dumps(line)
    for word in ("auditor", "customer-data", "customer", "clear", str(reply.one("gharial-exchange"))):
        assert word in text
    assert MARK not in text
