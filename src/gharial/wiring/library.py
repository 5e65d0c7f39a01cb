"""The Python library: `gharial.load(…)` and `.protect(…)`, the same gate without a proxy before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

from gharial.adapters.files import GatewayFiles, load_gateway_files
from gharial.gate.direct import JSON, find_request, protect_document
from gharial.gate.exchange import GateExchange
from gharial.gate.publishing import find_unrunnable
from gharial.gate.routes import RouteKind, RouteRule, RouteTable, parse_template
from gharial.gate.vouch import Caller
from gharial.model.errors import CallerInvalid, ConfigInvalid, DataUnfit, GharialError, PolicyInvalid, Problem
from gharial.model.yaml_text import parse_yaml, to_plain
from gharial.payload.python_values import decode_value, encode_value
from gharial.policy.checks import check_policy
from gharial.policy.document import Policy
from gharial.settings import Settings, read_settings_text
from gharial.wiring.embedded import Engine
from gharial.wiring.policy_tools import load_policy, params_of

ROUTE = "data"
"""The route of a policy that was loaded by itself; RECORD is the one with the parameters that the policy knows."""

RECORD = "record"


class Gharial:
    """A gate in this process. Made by `load`; may be used from any thread, and from any event loop.

    What `protect` is given never comes back as it was handed over unless the policy shows it so: on any error a
    GharialError is raised, and a policy in shadow mode is enforced here.
    """

    def __init__(self, files: GatewayFiles, engine: Engine) -> None:
        """Use `load`."""
        self._files = files
        self._engine = engine

    @overload
    def protect(
        self, data: bytes, *, caller: Caller, purpose: str = "", route: str = "", params: Mapping[str, object] = ...
    ) -> bytes: ...
    @overload
    def protect(
        self, data: str, *, caller: Caller, purpose: str = "", route: str = "", params: Mapping[str, object] = ...
    ) -> str: ...
    @overload
    def protect(
        self,
        data: dict[str, Any] | list[Any],
        *,
        caller: Caller,
        purpose: str = "",
        route: str = "",
        params: Mapping[str, object] = ...,
    ) -> Any: ...

    def protect(
        self, data: object, *, caller: Caller, purpose: str = "", route: str = "", params: Mapping[str, object] = {}
    ) -> object:
        """Return what `caller` may see of `data`, and count whom it shows.

        `data` is a JSON text (bytes or str), or a dict or list of JSON's own types; what comes back is of the same
        kind. `purpose` stands in the place of the caller's own. `route` is a route's name, with its path's parameters
        in `params`, or a request line (`GET /customers/42`). It may be left out where only one route that has a policy
        has these parameters.

        Budgets, incidents and the audit record are durable when it returns. Raises GharialError.
        """
        text, back = self._encode(data)
        return back(self.submit(text, caller=caller, purpose=purpose, route=route, params=params).result())

    @overload
    async def protect_async(
        self, data: bytes, *, caller: Caller, purpose: str = "", route: str = "", params: Mapping[str, object] = ...
    ) -> bytes: ...
    @overload
    async def protect_async(
        self, data: str, *, caller: Caller, purpose: str = "", route: str = "", params: Mapping[str, object] = ...
    ) -> str: ...
    @overload
    async def protect_async(
        self,
        data: dict[str, Any] | list[Any],
        *,
        caller: Caller,
        purpose: str = "",
        route: str = "",
        params: Mapping[str, object] = ...,
    ) -> Any: ...

    async def protect_async(
        self, data: object, *, caller: Caller, purpose: str = "", route: str = "", params: Mapping[str, object] = {}
    ) -> object:
        """Do as `protect` does, without holding up the event loop that waits for it."""
        text, back = self._encode(data)
        future = self.submit(text, caller=caller, purpose=purpose, route=route, params=params)
        return back(await asyncio.wrap_future(future))

    @property
    def engine(self) -> Engine:
        """What the middleware drives; no part of the library's promise."""
        return self._engine

    @property
    def max_bytes(self) -> int:
        """The longest JSON text that is read (`limits.body`)."""
        return self._engine.enforced.limits.body_bytes

    def policy_of(self, route: str = "", params: Mapping[str, object] = {}) -> Policy:
        """Return the policy that holds on a route. Raises GharialError as `protect` does."""
        head = find_request(self._files.routes, route, params)
        rule = next(rule for rule in self._files.routes.rules if rule.name == head.proxy_route)
        return self._files.policies[rule.policy]

    def status(self) -> Mapping[str, Any]:
        """Return what `gharial status` shows of a gate: policies, counters, limits; no value."""
        return self._engine.status()

    def close(self) -> None:
        """Let running calls end, write what waits, and let go of store and audit. So does the end of the process."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encode(self, data: object) -> tuple[bytes, Callable[[bytes], object]]:
        """Return data as a JSON text, and what makes of such a text what it was."""
        if type(data) is bytes:
            return data, _as_it_is
        if type(data) is str:
            try:
                return data.encode(), bytes.decode
            except UnicodeEncodeError:
                raise DataUnfit("the text holds half a character (a lone surrogate)") from None
        if type(data) in (dict, list):
            return encode_value(data, self._engine.enforced.limits), decode_value
        raise DataUnfit("data is a JSON text as bytes or str, or a dict or list")

    def submit(
        self,
        text: bytes,
        *,
        caller: Caller,
        purpose: str = "",
        route: str = "",
        params: Mapping[str, object] = {},
        media_type: str = JSON,
    ) -> Future[bytes]:
        """Begin what `protect` does with a JSON text, and return its future: several may be under way at once.

        `media_type` says where the text is not one JSON document but lines of JSON. Raises GharialError for what is
        wrong with the words; what is wrong with the text, the future raises.
        """
        if not isinstance(caller, Caller):
            raise CallerInvalid("caller is a gharial.Caller")
        if not isinstance(route, str) or not isinstance(params, Mapping):
            raise CallerInvalid("route is a text, params a mapping of its parameters")
        services = self._engine.enforced
        head = find_request(services.routes, route, params)
        vouched = caller.verified(services.tenant, purpose)

        async def run() -> bytes:
            try:
                return await protect_document(GateExchange(services, vouched), head, text, media_type)
            except GharialError:
                raise
            except Exception:  # noqa: BLE001 - a bug: its text may quote the data, so nothing of it is told
                raise GharialError from None

        return self._engine.run(run)


def _as_it_is(text: bytes) -> bytes:
    return text


def load(path: str | Path = "gharial.yaml", *, ephemeral: bool = False) -> Gharial:
    """Open a gate in this process, by a gharial.yaml or, with `ephemeral`, by a policy file alone.

    Keys, store and audit are those of the gharial.yaml: budgets and incidents go on where a gateway left them, and as
    long as one process has the store no other can. With `ephemeral` nothing is read or written but the files named
    here: keys are made anew, so tokens and pseudonyms of this process mean nothing to the next; budgets begin at
    nothing; the audit ends with the process. That is for tests and for trying a policy out.

    Raises ConfigInvalid and PolicyInvalid with all mistakes, and other GharialErrors (StoreInUse, KeyFileUnusable …).
    """
    path = Path(path)
    files = _policy_alone(path, ephemeral=ephemeral) if is_policy_file(path) else load_gateway_files(path)
    return Gharial(files, Engine(files, ephemeral=ephemeral))


def is_policy_file(path: Path) -> bool:
    """True if a file holds a policy, not a gharial.yaml. Raises ConfigInvalid if it can't be read."""
    root, _ = parse_yaml(read_settings_text(path), str(path))
    plain = to_plain(root) if root is not None else None
    return isinstance(plain, dict) and "policy" in plain


def _policy_alone(path: Path, *, ephemeral: bool) -> GatewayFiles:
    policy = load_policy(path)
    if not ephemeral:
        what = "a policy alone names no keys, store or audit: load a gharial.yaml, or say that it is ephemeral"
        raise ConfigInvalid([Problem(str(path), 1, 1, what)])
    rules = list(_rules_for(policy))
    problems = check_policy(policy, {}) or find_unrunnable(policy, {rule.name: rule.template.params for rule in rules})
    if problems:
        raise PolicyInvalid(problems)
    settings = Settings.model_validate(
        {
            "upstreams": {"none": {"url": "http://127.0.0.1"}},
            "routes": [
                {"route": rule.name, "match": rule.template.text, "upstream": "none", "policy": policy.name}
                for rule in rules
            ],
        },
        context={"base": path.resolve().parent},
    )
    return GatewayFiles(path, path.resolve().parent, settings, {policy.name: policy}, RouteTable(rules))


def _rules_for(policy: Policy) -> list[RouteRule]:
    """Return a route without parameters and, where the policy knows any, one with all of them."""
    rules = [RouteRule(ROUTE, parse_template(f"GET /{ROUTE}"), RouteKind.PROTECT, policy.name)]
    params = params_of(policy)
    if params:
        template = parse_template(f"GET /{RECORD}/" + "/".join(f"{{{name}}}" for name in params))
        rules.append(RouteRule(RECORD, template, RouteKind.PROTECT, policy.name))
    return rules
