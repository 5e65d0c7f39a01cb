"""A whole gateway for tests: `gharial up` as a process, before an upstream of the test's, over real HTTP.

Every value that the upstream tells of a person holds a mark. Whatever a test does, no file that a gateway writes (logs,
audit, store, Envoy's configuration) and nothing that a command prints may hold the mark, a credential or a key: the
harness looks when a gateway ends, and after every test that shares one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from support.envoy_harness import Answer, Torn, free_port, parse_answer
from support.upstreams import Raw, SeenRequest, json_answer

from gharial.adapters.admin import AdminClient
from gharial.wiring.keyfiles import make_key_files

T = TypeVar("T")

MARK = "Zx81Planted"
"""Stands in every text that the upstream tells of a person."""

ACCOUNTS_FROM = 4815162300000
"""Account numbers are this plus the customer's number; their first digits are a mark of their own."""

BIRTH = "1979-11-23"

POLICY = """\
policy: customer-data
version: 3
mode: enforce
tags:
  person:  { find: ['$..customerId', 'path:id'], subject: customer }
  name:    { find: '$..fullName' }
  email:   { find: '$..email' }
  birth:   { find: '$..dob' }
  account: { find: '$..accountNumber' }
  public:  { find: ['$..plan', '$..lines'] }
  contact: [name, email]
unlisted_fields: drop
who:
  anyone:  {}
  care:    { role: care }
  auditor: { role: auditor }
  partner: { client: 'acme-*' }
  lab:     { role: lab }
grants:
  - grant: basics
    to: anyone
    show: { person: token(scope=client), public: clear }
  - grant: support-view
    to: care
    for: [support]
    show: { person: clear, contact: clear, birth: year }
    reidentify: [person]
    budget: { people: 60/h, then: mask }
  - grant: audit-view
    to: auditor
    show: { person: clear, contact: clear, account: clear }
  - grant: partner-billing
    to: partner
    for: [billing]
    show: { contact: token(scope=client), birth: year }
    reidentify: [person]
  - grant: research
    to: lab
    for: [study]
    show: { birth: date_shift(30), account: fpe, name: encrypt, email: pseudonym }
"""

ROUTES = (
    {"route": "customer", "match": "GET,POST,PUT /customers/{id}", "upstream": "api", "policy": "customer-data"},
    {"route": "list", "match": "GET /customers", "upstream": "api", "policy": "customer-data"},
    {"route": "any", "match": "GET /any/**", "upstream": "api", "policy": "customer-data"},
    {"route": "open", "match": "GET /open/**", "upstream": "api", "pass": True},
)


def customer_id(number: int) -> str:
    """The id of a customer, which is a value that may not be seen either."""
    return f"{MARK}-c{number}"


def customer(number: int) -> dict[str, Any]:
    """A record of the upstream. Every value but `plan`, `lines` and the year of birth is planted."""
    return {
        "customerId": customer_id(number),
        "fullName": f"{MARK}-name-{number:04d}",
        "email": f"{MARK}-{number:04d}@example.com",
        "dob": BIRTH,
        "accountNumber": ACCOUNTS_FROM + number,
        "plan": "magenta",
        "lines": 2,
        "note": f"{MARK}-a-field-that-nobody-listed",
    }


def people_in_clear(*bodies: bytes) -> set[int]:
    """The customers whose id, name or email stands in these bodies."""
    return {int(number) for body in bodies for number in _PERSON.findall(body)}


_PERSON = re.compile(rf"{MARK}-(?:name-|c)?([0-9]+)".encode())


def needles(*values: str) -> tuple[bytes, ...]:
    """The values as they may lie in a file: plain, as UTF-16, as hex, and in base64 at each alignment."""
    found: list[bytes] = []
    for value in values:
        plain = value.encode()
        found += [plain, plain.lower(), value.encode("utf-16-le"), plain.hex().encode()]
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + plain + b"\0" * 2)
            # What depends on the neighbours alone is cut off at both ends.
            found.append(coded[4 if shift else 0 : -(-len(plain + b"\0" * shift) * 4 // 3) - len(coded) - 2])
    return tuple(dict.fromkeys(found))


PLANTED = needles(MARK, str(ACCOUNTS_FROM)[:8], BIRTH)


def shows(answer: Answer | bytes) -> bool:
    """Whether an answer, its head included, holds anything planted."""
    data = answer if isinstance(answer, bytes) else repr(answer.headers).encode() + answer.body
    return any(needle in data for needle in PLANTED)


# --- the upstream -----------------------------------------------------------------------------------------------------

Reply = Raw | Callable[[SeenRequest], Raw | Awaitable[Raw]]


@dataclass(slots=True)
class Api:
    """What the upstream answers: by path what a test laid there, else the record of the customer that is asked for."""

    answers: dict[str, Reply] = field(default_factory=dict)

    def __call__(self, seen: SeenRequest) -> Raw | Awaitable[Raw]:
        path = seen.target.partition("?")[0]
        reply = self.answers.get(path)
        if reply is None:
            return self._record(path)
        return reply if isinstance(reply, Raw) else reply(seen)

    @staticmethod
    def _record(path: str) -> Raw:
        number = path.rpartition("-c")[2]
        if not path.startswith(f"/customers/{MARK}-c") or not number.isdecimal():
            return json_answer(json.dumps({"error": f"{MARK}-unknown"}), status="404 Not Found")
        return json_answer(json.dumps(customer(int(number))))


@dataclass(slots=True)
class Held:
    """An answer that waits until it is let go; `arrived` counts the requests that reached the upstream."""

    raw: Raw
    arrived: int = 0
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, _: SeenRequest) -> Raw:
        self.arrived += 1
        await self.free.wait()
        return self.raw


# --- polling ----------------------------------------------------------------------------------------------------------


async def until(look: Callable[[], T | Awaitable[T]], *, within_s: float = 30.0) -> T:
    """Look again and again until what is found is true; return it. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while True:
            found = look()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.02)


# --- the gateway ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said, and its exit status."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the gateway as `run/parts.json` has it."""

    name: str
    state: str
    pid: int | None
    restarts: int


@dataclass(slots=True)
class Home:
    """The folder of one gateway, and all that can be done with it from outside."""

    base: Path
    port: int
    mark: str
    secrets: set[str] = field(default_factory=set)
    process: asyncio.subprocess.Process | None = None

    @property
    def config(self) -> Path:
        return self.base / "gharial.yaml"

    @property
    def run(self) -> Path:
        return self.base / "run"

    @property
    def errors(self) -> Path:
        """What `gharial up` said on standard error."""
        return self.base / "out" / "up.err"

    def env(self) -> dict[str, str]:
        return {**os.environ, "GHARIAL_TEST_MARK": self.mark, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}

    # --- commands

    async def cli(self, *words: str, secret_in_output: bool = False) -> Said:
        """Run `gharial WORDS -c …`; what it says holds nothing planted and, unless it must, no secret."""
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "gharial", *words, "-c", str(self.config)],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.env(),
        )
        try:
            async with asyncio.timeout(30):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = Said(process.returncode or 0, out.decode(), err.decode())
        hidden = PLANTED if secret_in_output else (*PLANTED, *needles(*self.secrets))
        assert not any(needle in out + err for needle in hidden), f"'{words}' prints what nobody may see"
        return said

    async def add_client(self, name: str, *, purpose: str = "", roles: Iterable[str] = (), **facts: Any) -> str:
        """Register a client through the admin socket and return its API key."""
        admin = AdminClient(self.run / "admin.sock")
        body = {"name": name, "purpose": purpose, "roles": list(roles), **facts}
        made = await asyncio.to_thread(admin.call, "POST", "/clients", body)
        self.secrets |= {made["key"], made["secret"]}
        return str(made["key"])

    async def status(self) -> dict[str, Any]:
        """What the gate says of itself."""
        return dict(await asyncio.to_thread(AdminClient(self.run / "admin.sock").call, "GET", "/status"))

    # --- the process

    async def start(self) -> None:
        """Start `gharial up` and wait until gate and Envoy are ready."""
        await self.spawn()
        await until(self._is_up)

    async def spawn(self) -> asyncio.subprocess.Process:
        """Start `gharial up`, and don't wait."""
        self.errors.parent.mkdir(exist_ok=True)
        with (self.base / "out" / "up.out").open("ab") as out, self.errors.open("wb") as err:
            self.process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "gharial", "up", "-c", str(self.config)],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self.env(),
                start_new_session=True,
            )
        return self.process

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.errors.read_text()
        return "Gharial stands at" in self.errors.read_text() and all(
            part.state == "ready" and part.pid is not None and _runs(part.pid) for part in self.parts().values()
        )

    def parts(self) -> dict[str, Part]:
        """Gate and Envoy, as the supervisor last wrote them down."""
        try:
            return {item["name"]: Part(**item) for item in json.loads((self.run / "parts.json").read_text())}
        except FileNotFoundError:
            return {"none yet": Part("none yet", "stopped", None, 0)}

    def pid(self, name: str) -> int:
        """The process id of a part."""
        pid = self.parts()[name].pid
        assert pid is not None
        return pid

    async def restarted(self, name: str, before: int) -> Part:
        """Wait until a part whose process id was `before` is ready under another one."""

        def look() -> Part | None:
            part = self.parts()[name]
            return part if part.state == "ready" and part.pid not in (None, before) else None

        found = await until(look)
        assert found is not None
        return found

    async def stop(self) -> int:
        """End the gateway with SIGTERM; return its exit status."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            return await self.process.wait()

    def left_running(self) -> list[str]:
        """The command lines of processes of this gateway that still run (only Linux can tell)."""
        return list(_marked(self.mark))

    # --- what clients do

    async def get(
        self, target: str, *headers: str, method: str = "GET", body: bytes = b"", key: str = "", timeout_s: float = 30.0
    ) -> Answer:
        """One call on a connection of its own."""
        head = [f"{method} {target} HTTP/1.1", "host: gateway.test", "connection: close", *headers]
        head += [f"x-api-key: {key}"] if key else []
        head += [f"content-length: {len(body)}"] if body else []
        data = "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body
        return await self.first_answer(data, head_only=method == "HEAD", timeout_s=timeout_s)

    async def raw(self, data: bytes, *, timeout_s: float = 30.0) -> bytes:
        """Write these bytes and return all that comes until the gateway closes the connection."""
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(data)
                await writer.drain()
                parts = []
                with contextlib.suppress(ConnectionResetError):
                    while part := await reader.read(1_048_576):
                        parts.append(part)
                return b"".join(parts)
            finally:
                writer.close()

    async def first_answer(self, data: bytes, *, head_only: bool = False, timeout_s: float = 10.0) -> Answer:
        """Write these bytes and return the first answer, without waiting for the connection to close. Raises Torn."""
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(data)
                raw = b""
                while True:
                    part = b""
                    with contextlib.suppress(ConnectionResetError):
                        part = await reader.read(1_048_576)
                    raw += part
                    try:
                        return parse_answer(raw, head_only=head_only)
                    except Torn:
                        if not part:
                            raise
            finally:
                writer.close()

    async def ask_whatever_comes(self, target: str, *headers: str, key: str = "") -> Answer | None:
        """One call; None where the connection was refused or broke off."""
        try:
            return await self.get(target, *headers, key=key)
        except (ConnectionError, Torn):
            return None

    # --- what it leaves on disk

    def audit(self) -> list[dict[str, Any]]:
        """All audit records."""
        files = sorted((self.run / "audit").glob("audit-*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def look_for_leaks(self) -> None:
        """Fail if any file that the gateway wrote, or anything that it said, holds a planted value or a secret."""
        hidden = (*PLANTED, *needles(*self.secrets))
        for file in (*self.run.rglob("*"), *(self.base / "out").rglob("*")):
            if file.is_file():
                data = file.read_bytes()
                assert not any(needle in data for needle in hidden), f"{file.name} holds what nobody may see"
                assert file.suffix in (".db", ".db-wal") or b"Traceback" not in data, f"a traceback in {file.name}"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _marked(mark: str) -> Iterator[str]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"GHARIAL_TEST_MARK={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                yield (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()


def settings_for(port: int, upstreams: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The content of a gharial.yaml with the usual routes, unless `more` says otherwise."""
    return {
        "listen": {"address": "127.0.0.1", "port": port},
        "upstreams": dict(upstreams),
        "routes": list(ROUTES),
        "policies": ["policies/*.yaml"],
        "identity": [{"api_keys": {"header": "X-Api-Key"}}],
        "keys": {"file": "run/keys.json", "kek": "file:secret/kek"},
        "alarms": ["file://run/alarms.jsonl"],
        **more,
    }


@contextlib.asynccontextmanager
async def a_home() -> AsyncIterator[Home]:
    """A short folder for one gateway. Afterwards nothing of it runs, and its files hold nothing planted."""
    base = Path(tempfile.mkdtemp(prefix="gw", dir="/tmp"))
    home = Home(base, free_port(), uuid.uuid4().hex)
    try:
        yield home
        if home.process is not None:
            await home.stop()
        assert home.left_running() == []
        home.look_for_leaks()
    finally:
        if home.process is not None and home.process.returncode is None:
            home.process.kill()
            await home.process.wait()
        with contextlib.suppress(TimeoutError):
            await until(lambda: not home.left_running(), within_s=5)
        shutil.rmtree(base)


def write_gateway(
    home: Home,
    upstreams: Mapping[str, Any],
    *,
    policy: str = POLICY,
    files: Mapping[str, str] | None = None,
    **more: Any,
) -> None:
    """Write configuration, policy, keys and `files`. The KEK lies outside the run folder, where it would be found."""
    (home.base / "policies").mkdir()
    (home.base / "policies" / "customer-data.yaml").write_text(policy)
    for name, text in (files or {}).items():
        (home.base / name).write_text(text)
    make_key_files(home.run / "keys.json", home.base / "secret" / "kek")
    home.secrets.add((home.base / "secret" / "kek").read_text().strip())
    home.config.write_text(json.dumps(settings_for(home.port, upstreams, **more), indent=1))


@contextlib.asynccontextmanager
async def a_gateway(upstreams: Mapping[str, Any], **more: Any) -> AsyncIterator[Home]:
    """A running gateway; see `write_gateway`. What else is named replaces whole sections of its settings."""
    async with a_home() as home:
        write_gateway(home, upstreams, **more)
        await home.start()
        yield home
