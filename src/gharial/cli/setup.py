"""`gharial init` and `config`: the first files, and what can stand in them."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from urllib.parse import urlsplit

import click

from gharial.cli.output import fail, json_option, note, print_json, speaks_errors

MAX_SAMPLE_BYTES = 20_000_000
FIRST_POLICY = "first-policy"


@click.command()
@click.option("--upstream", required=True, metavar="URL", help="The API to protect, e.g. http://127.0.0.1:9000.")
@click.option(
    "--sample",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A JSON answer of that API: its fields are listed for you to tag. Only names are taken, no values.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    show_default=True,
    help="Where to write the files.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Port to listen on.")
@speaks_errors
def init(upstream: str, sample: Path | None, folder: Path, port: int) -> None:
    """Write gharial.yaml, a key file, and a first policy in shadow mode.

    \b
    curl -s http://127.0.0.1:9000/customers/42 > answer.json
    gharial init --upstream http://127.0.0.1:9000 --sample answer.json
    """
    from gharial.adapters.files import write_private_file
    from gharial.adapters.scaffold import config_text, policy_text, sample_fields
    from gharial.wiring.keyfiles import make_key_files

    _check_upstream(upstream)
    config_file, policy_file = folder / "gharial.yaml", folder / "policies" / f"{FIRST_POLICY}.yaml"
    key_file, kek_file = folder / "run" / "keys.json", folder / "run" / "kek"
    for file in (config_file, policy_file, key_file, kek_file):
        if file.exists():
            fail(f"{file} exists already; gharial init never overwrites. Use --dir for another folder.")
    fields = []
    if sample is not None:
        try:
            fields = sample_fields(_load_sample(sample))
        except ValueError as error:
            fail(f"{sample}: {error}")
    make_key_files(key_file, kek_file)
    write_private_file(policy_file, policy_text(FIRST_POLICY, fields).encode())
    write_private_file(config_file, config_text(upstream, FIRST_POLICY, port).encode())
    for file, what in (
        (config_file, "the gateway: where it listens, what is behind it"),
        (policy_file, f"a policy in shadow mode, {len(fields)} fields listed for you to tag"),
        (key_file, "the keys, wrapped (mode 0600)"),
        (kek_file, "the key that wraps them (mode 0600): move it elsewhere before production"),
    ):
        click.echo(f"{file}  {click.style(what, dim=True)}")
    at = "" if folder == Path() else f" -c {config_file}"
    note(f"\nNext:\n  gharial up{at}\n  curl -i http://127.0.0.1:{port}/\n  gharial status{at}")
    note(f"Then tag the fields in {policy_file}; its first lines say how to go on.")


def _check_upstream(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.username and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        fail("--upstream wants http:// or https:// with a host, e.g. http://127.0.0.1:9000")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        fail("--upstream has no path: give the host, and routes in gharial.yaml say which paths are served")


def _load_sample(sample: Path) -> object:
    data = sample.read_bytes()
    if len(data) > MAX_SAMPLE_BYTES:
        raise ValueError(f"a sample has at most {MAX_SAMPLE_BYTES} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        # The parser's own words could quote the sample.
        raise ValueError("this is not a JSON document") from None


@click.group()
def config() -> None:
    """Read about the settings of gharial.yaml."""


@config.command("explain")
@click.argument("key", required=False)
@json_option
def explain(key: str | None, as_json: bool) -> None:
    """Say what KEY is for, and its default; without KEY, list all.

    \b
    gharial config explain limits.body
    gharial config explain upstreams
    """
    from gharial.settings import setting_default, setting_keys

    known = dict(setting_keys())
    chosen = {k: v for k, v in known.items() if key is None or k == key or k.startswith(f"{key}.")}
    if not chosen:
        near = difflib.get_close_matches(key or "", known, n=1, cutoff=0.4)
        fail(f"there is no setting '{key}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    if as_json:
        print_json([{"key": k, "meaning": v, "default": setting_default(k)} for k, v in chosen.items()])
        return
    for name, meaning in chosen.items():
        default = setting_default(name)
        click.echo(click.style(name, bold=True) + (f"  (default: {default})" if default else ""))
        click.echo(f"    {meaning}")
