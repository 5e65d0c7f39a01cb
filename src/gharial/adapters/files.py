"""Reads from disk what a gateway is made of: settings, policies, routes; every mistake with its place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gharial.adapters.active_file import ActiveTexts
from gharial.gate.datasets import Manifest, manifest_rule
from gharial.gate.publishing import PolicyText, by_name, find_unrunnable
from gharial.gate.routes import RouteKind, RouteRule, RouteTable, parse_template
from gharial.model.errors import ConfigInvalid, PolicyInvalid, Problem
from gharial.model.plan import Mode
from gharial.policy.checks import check_policy
from gharial.policy.document import Policy, parse_policy
from gharial.policy.incoming import reads_requests
from gharial.settings import Route, Settings, Upstream, load_settings, parse_settings, read_settings_text

MAX_POLICY_BYTES = 10_000_000
MAX_SECRET_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class GatewayFiles:
    """What `gharial.yaml` and the files it names say. `base` is its folder, `run_dir` where sockets and logs go."""

    path: Path
    base: Path
    settings: Settings
    policies: Mapping[str, Policy]
    routes: RouteTable = field(repr=False)

    @property
    def run_dir(self) -> Path:
        """The folder of the admin socket: sockets, Envoy's configuration and its log live beside it."""
        return self.admin_socket.parent

    @property
    def admin_socket(self) -> Path:
        """The admin socket."""
        return self.base / self.settings.admin.socket

    @property
    def gate_socket(self) -> Path:
        """The socket on which the gate serves Envoy."""
        return self.run_dir / "gate.sock"

    @property
    def envoy_admin_socket(self) -> Path:
        """The socket of Envoy's own admin interface."""
        return self.run_dir / "envoy-admin.sock"

    @property
    def envoy_routes(self) -> Path:
        """The file that Envoy reads its routes from, again each time that it is replaced."""
        return self.run_dir / "envoy-routes.json"

    @property
    def store_path(self) -> Path:
        """The SQLite file."""
        return self.base / self.settings.store.removeprefix("sqlite:")


def load_gateway_files(path: Path, active: ActiveTexts | None = None) -> GatewayFiles:
    """Read everything but keys and secrets; with `active`, from these texts in place of the files at `path`.

    Raises ConfigInvalid or PolicyInvalid with all the mistakes of a kind.
    """
    base = path.resolve().parent
    settings = load_settings(path) if active is None else parse_settings(active.config, str(path), base)
    policies = _load_policies(settings, base, active)
    problems = [*_unknown_policies(settings, policies, path), *_unfit_manifests(settings, policies, path)]
    if problems:
        raise ConfigInvalid(problems)
    for policy in policies.values():
        covered = {r.route: parse_template(r.match).params for r in settings.routes if r.policy == policy.name}
        covered.update((rule.name, ()) for rule in map(manifest_rule, manifests_of(settings, policy.name)))
        problems.extend(check_policy(policy, covered) or find_unrunnable(policy, covered))
    if problems:
        raise PolicyInvalid(problems)
    rules = [_rule(route, settings, base, policies) for route in settings.routes]
    return GatewayFiles(path, base, settings, policies, RouteTable(rules))


def read_active_texts(path: Path) -> ActiveTexts:
    """Return the texts of gharial.yaml and of the policies that it names, as they are now.

    Raises ConfigInvalid or PolicyInvalid for what can't be read.
    """
    text = read_settings_text(path)
    base = path.resolve().parent
    return ActiveTexts(text, tuple(load_policy_texts(parse_settings(text, str(path), base), base)))


def policy_files(settings: Settings, base: Path) -> Iterator[Path]:
    """Yield the policy files that the settings name, sorted within each pattern."""
    for pattern in settings.policies:
        parent, name = os.path.split(pattern)
        folder = base / parent
        yield from sorted(folder.glob(name)) if "*" in name else [folder / name]


def load_policy_texts(settings: Settings, base: Path) -> list[PolicyText]:
    """Return the policy files as they are now. Raises PolicyInvalid naming those that can't be read."""
    return read_policy_texts(policy_files(settings, base), base)


def read_policy_texts(files: Iterable[Path], base: Path) -> list[PolicyText]:
    """Return what stands in these policy files. Raises PolicyInvalid naming those that can't be read."""
    problems: list[Problem] = []
    found = list(_readable(files, base, problems))
    if problems:
        raise PolicyInvalid(problems)
    return found


def _readable(files: Iterable[Path], base: Path, problems: list[Problem]) -> Iterator[PolicyText]:
    """Yield what stands in the files that can be read; the others are added to `problems`."""
    for file in files:
        try:
            yield PolicyText(_shown(file, base), _read_text(file, MAX_POLICY_BYTES))
        except (OSError, ValueError) as error:
            problems.append(Problem(_shown(file, base), 1, 1, f"can't be read ({type(error).__name__})"))


def _load_policies(settings: Settings, base: Path, active: ActiveTexts | None) -> dict[str, Policy]:
    policies: list[Policy] = []
    problems: list[Problem] = []
    for text in _readable(policy_files(settings, base), base, problems) if active is None else active.policies:
        try:
            policies.append(parse_policy(text.text, text.file))
        except PolicyInvalid as error:
            problems.extend(error.problems)
    found, repeated = by_name(policies)
    problems.extend(repeated)
    if problems:
        raise PolicyInvalid(problems)
    return found


def _shown(file: Path, base: Path) -> str:
    return str(file.relative_to(base)) if file.is_relative_to(base) else str(file)


def _read_text(file: Path, limit: int) -> str:
    with file.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    return data.decode("utf-8")


def _unknown_policies(settings: Settings, policies: Mapping[str, Policy], path: Path) -> Iterator[Problem]:
    for index, route in enumerate(settings.routes):
        if route.policy is not None and route.policy not in policies:
            names = ", ".join(sorted(policies)) or "none"
            what = f"routes.{index} ({route.route}): there is no policy '{route.policy}'; found: {names}"
            yield Problem(str(path), 1, 1, what)


def manifests_of(settings: Settings, policy: str = "") -> list[Manifest]:
    """Return the manifests, those of one policy if it is named."""
    return [
        Manifest(name, found.policy, frozenset(found.public))
        for name, found in settings.manifests.items()
        if policy in ("", found.policy)
    ]


def _unfit_manifests(settings: Settings, policies: Mapping[str, Policy], path: Path) -> Iterator[Problem]:
    for manifest in manifests_of(settings):
        policy = policies.get(manifest.policy)
        if policy is None:
            names = ", ".join(sorted(policies)) or "none"
            what = f"manifests.{manifest.name}: there is no policy '{manifest.policy}'; found: {names}"
            yield Problem(str(path), 1, 1, what)
            continue
        given = "public" in settings.manifests[manifest.name].model_fields_set
        unknown = sorted(manifest.public - policy.tags.keys()) if given else []
        if unknown:
            what = f"manifests.{manifest.name}: the policy has no tag '{unknown[0]}'"
            yield Problem(str(path), 1, 1, what)


def _rule(route: Route, settings: Settings, base: Path, policies: Mapping[str, Policy]) -> RouteRule:
    upstream = settings.upstreams[route.upstream]
    return RouteRule(
        name=route.route,
        template=parse_template(route.match),
        kind=_kind(route, policies),
        policy=route.policy or "",
        keep_headers=frozenset(name.lower() for name in route.keep_headers),
        upstream_authorities=_authorities(upstream),
        strip_headers=_stripped(settings) if upstream.credentials == "strip" else frozenset(),
        inject_authorization=load_secret(upstream.inject_reference, base) if upstream.inject_reference else "",
        reads_requests=route.policy is not None and reads_requests(policies[route.policy]),
        stream=route.stream,
    )


def _kind(route: Route, policies: Mapping[str, Policy]) -> RouteKind:
    if route.policy is None:
        return RouteKind.PASS
    return RouteKind.SHADOW if policies[route.policy].mode is Mode.SHADOW else RouteKind.PROTECT


def _authorities(upstream: Upstream) -> frozenset[str]:
    """Return the names by which the upstream may call itself in a redirect, with and without its port."""
    names = {upstream.address, upstream.host_header.lower(), upstream.host_header.rpartition(":")[0].lower()}
    names.add(f"{upstream.address}:{upstream.port}")
    return frozenset(name for name in names if name)


def _stripped(settings: Settings) -> frozenset[str]:
    own = {source.jwt.header.lower() for source in settings.identity if source.jwt is not None}
    return frozenset(own | {"authorization"})


def load_secret(reference: str, base: Path) -> str:
    """Return what `env:NAME` or `file:PATH` holds, without white space around it. Raises ConfigInvalid, naming it."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = os.environ.get(name, "")
    else:
        try:
            value = _read_text(base / name, MAX_SECRET_BYTES)
        except (OSError, ValueError) as error:
            raise ConfigInvalid([Problem(reference, 1, 1, f"can't be read ({type(error).__name__})")]) from None
    value = value.strip()
    if not value:
        raise ConfigInvalid([Problem(reference, 1, 1, "is empty or not set")])
    return value


def write_private_file(path: Path, data: bytes) -> None:
    """Create a file of mode 0600, its folder 0700. Raises FileExistsError rather than overwrite one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
