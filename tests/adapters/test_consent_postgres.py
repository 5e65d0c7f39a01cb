"""Consent at a real PostgreSQL server: what it tells, and that every failure is no consent."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.postgres import a_postgres, needs_postgres, url_of

from gharial.adapters.consent import Trouble
from gharial.adapters.consent_postgres import PostgresConsent
from gharial.adapters.postgres import PostgresPlace, PostgresPool, parse_postgres_url
from gharial.model.errors import ConfigInvalid

QUERY = "SELECT kind FROM consents WHERE space = asked.space AND person = asked.person"
pytestmark = pytest.mark.xdist_group("postgres")

ANN, BOB, UNKNOWN = ("customer", "ann@ex.org"), ("customer", "bob@ex.org"), ("customer", "nobody")


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    script = (
        "CREATE TABLE consents (space text, person text, kind text);"
        "INSERT INTO consents VALUES ('customer', 'ann@ex.org', 'sharing'), ('customer', 'ann@ex.org', 'marketing'),"
        "('patient', 'bob@ex.org', 'sharing'), ('customer', 'it''s :me $1', 'sharing');"
    )
    with a_postgres(script) as started:
        yield started


@contextlib.asynccontextmanager
async def a_resolver(server: Any, query: str = QUERY, timeout_s: float = 5.0) -> AsyncIterator[PostgresConsent]:
    resolver = PostgresConsent(parse_postgres_url(url_of(server)), query, timeout_s)
    try:
        yield resolver
    finally:
        await resolver.close()


@needs_postgres
async def test_it_tells_per_space_and_person(server: Any):
    """All of an exchange in one go; whoever is not in the table has consented to nothing, also in another space."""
    odd = ("customer", "it's :me $1")
    async with a_resolver(server) as resolver:
        found = await resolver.fetch([ANN, BOB, UNKNOWN, odd, ("patient", "bob@ex.org"), ANN])
        assert found == {
            ANN: frozenset({"sharing", "marketing"}), BOB: frozenset(), UNKNOWN: frozenset(),
            odd: frozenset({"sharing"}), ("patient", "bob@ex.org"): frozenset({"sharing"}),
        }  # fmt: skip
        assert await resolver.fetch([]) == {}
        assert resolver.trouble.failures == 0


@needs_postgres
async def test_an_exchange_is_one_query(server: Any):
    """However many people it is about, all their answers come from one statement of the server."""
    people = [("customer", f"p{n}") for n in range(500)]
    query = "SELECT statement_timestamp()::text || asked.person"
    async with a_resolver(server, query) as resolver:
        found = await resolver.fetch([*people, ANN])
    stamps = {next(iter(kinds)).removesuffix(person[1]) for person, kinds in found.items()}
    assert len(found) == 501
    assert len(stamps) == 1


@needs_postgres
@pytest.mark.parametrize("text", ["half \ud800 of a character", "a \0 in it"])
async def test_a_name_that_is_no_text_spoils_no_other(server: Any, text: str):
    """JSON can spell names that PostgreSQL can't hold: nobody is called so, and the others are asked about."""
    async with a_resolver(server) as resolver:
        found = await resolver.fetch([("customer", text), ANN])
        assert found == {ANN: frozenset({"sharing", "marketing"})}
        assert await resolver.fetch([("customer", text)]) == {}


@needs_postgres
@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("SELECT kind FROM nowhere WHERE person = asked.person", "UndefinedTableError"),
        ("SELEC asked.person", "PostgresSyntaxError"),
        ("SELECT 1/(length(asked.person) - 10)", "DivisionByZeroError"),
        ("SELECT asked.person::int::text", "InvalidTextRepresentationError"),
        ("SELECT lo_create(0)::text || asked.person", "ReadOnlySQLTransactionError"),
    ],
)
async def test_a_query_that_fails_is_no_consent(server: Any, query: str, kind: str):
    """The trouble names the kind of failure, never a value; a query can't write."""
    async with a_resolver(server, query) as resolver:
        assert await resolver.fetch([ANN]) == {}
        assert resolver.trouble.problem == f"the database can't be asked ({kind})"


@needs_postgres
async def test_kinds_that_are_no_texts_count_for_nothing(server: Any):
    """A number or NULL is no kind of consent."""
    for query in ("SELECT 7 WHERE asked.person <> ''", "SELECT NULL::text WHERE asked.person <> ''"):
        async with a_resolver(server, query) as resolver:
            assert await resolver.fetch([ANN]) == {ANN: frozenset()}


@needs_postgres
async def test_a_slow_query_is_ended(server: Any):
    """At the time limit nobody has consented, and the server does not go on with it."""
    async with a_resolver(server, "SELECT pg_sleep(60)::text || asked.person", timeout_s=0.2) as resolver:
        assert await resolver.fetch([ANN]) == {}
        assert resolver.trouble.failures == 1
    busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gharial' AND state = 'active';"
    # Each look is a process of its own; the server ends the query itself at its statement_timeout.
    assert any("0" in server.psql(busy).split() for _ in range(100))


@needs_postgres
async def test_connections_that_are_cut_come_back(server: Any):
    """A server that ends our connections is no consent at most once; after that it is asked again, by itself."""
    async with a_resolver(server) as resolver:
        assert (await resolver.fetch([ANN]))[ANN]
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gharial';")
        again = [await resolver.fetch([ANN]) for _ in range(3)]
        assert all(found.get(ANN) in (None, frozenset({"sharing", "marketing"})) for found in again)
        assert again[-1][ANN]
        assert resolver.trouble.problem == ""


@needs_postgres
async def test_a_wrong_user_and_a_server_that_is_gone_are_no_consent(server: Any, tmp_path: Path):
    """Nothing of the address is in what is told."""
    told: list[str] = []
    place = parse_postgres_url(url_of(server))
    for wrong in (replace(place, user="mallory-hunter2"), replace(place, host=str(tmp_path / "hunter2"))):
        resolver = PostgresConsent(wrong, QUERY, 5.0, Trouble(told.append))
        assert await resolver.fetch([ANN]) == {}
        await resolver.close()
    assert len(told) == 2
    assert "hunter2" not in repr(told)


@needs_postgres
@pytest.mark.parametrize("kind", [AttributeError, KeyError, RuntimeError])
async def test_whatever_the_library_raises_is_no_consent(kind: type[Exception]):
    """Of a peer that talks nonsense asyncpg raises errors of no common kind: counted, told by their kind alone."""

    class Nonsense(PostgresConsent):
        async def _ask(self, people: Any) -> Any:
            raise kind(repr(people))

    resolver = Nonsense(PostgresPlace("127.0.0.1", 1, "d", "u"), QUERY)
    assert await resolver.fetch([ANN]) == {}
    assert (resolver.trouble.failures, resolver.trouble.problem) == (
        1,
        f"the database can't be asked ({kind.__name__})",
    )


@needs_postgres
def test_across_a_network_the_connection_is_checked(tmp_path: Path):
    """A host that is not this one is never spoken to without TLS, and never without its name checked."""
    far = PostgresPool(PostgresPlace("db.internal", 5432, "d", "u"), "consent.postgres", 1.0).tls
    assert isinstance(far, ssl.SSLContext)
    assert far.check_hostname
    assert far.verify_mode is ssl.CERT_REQUIRED
    assert PostgresPool(PostgresPlace("127.0.0.1", 5432, "d", "u"), "consent.postgres", 1.0).tls is False
    (tmp_path / "ca.pem").write_text("none")
    with pytest.raises(ConfigInvalid, match=r"consent\.postgres\.ca"):
        PostgresConsent(PostgresPlace("127.0.0.1", 5432, "d", "u", ca=tmp_path / "ca.pem"), QUERY)


def test_an_address_is_read_or_refused():
    """A password in it is refused and not quoted; what is not understood is refused too."""
    assert parse_postgres_url("postgresql://u@h:1/d") == PostgresPlace("h", 1, "d", "u")
    assert parse_postgres_url("postgresql://u@h/d").port == 5432
    assert parse_postgres_url("postgresql://u@/d?host=/run/pg") == PostgresPlace("/run/pg", 5432, "d", "u")
    for wrong in (
        "postgresql://u:hunter2@h/d", "postgresql://u:hunter2/x@h/d", "postgresql://u:hunter2\u2100@h/d",
        "postgresql://h/d", "postgresql://u@h", "mysql://u@h/d", "postgresql://u@/d",
        "postgresql://u@h/d?sslmode=disable", "postgresql://u@h/d?host=/x", "postgresql://u@/d?host=x",
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"url|host=") as refused:
            parse_postgres_url(wrong)
        assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(PostgresPlace("h", 1, "d", "u", "hunter2"))
