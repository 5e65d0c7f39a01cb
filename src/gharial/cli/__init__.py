"""The command line: parses arguments, calls one thing, prints. It decides nothing.

Exit status: 0 done, 1 something is wrong (said on standard error), 2 the command's words are off.
"""

from __future__ import annotations

import click

from gharial import __version__
from gharial.cli.clients import clients
from gharial.cli.erase import erase
from gharial.cli.gateway import doctor, gate, status, up
from gharial.cli.incidents import incidents
from gharial.cli.keys import keys
from gharial.cli.policy import policy
from gharial.cli.protect import protect
from gharial.cli.publication import canary, history, publish, rollback
from gharial.cli.record import record, replay
from gharial.cli.reveal import reveal
from gharial.cli.setup import config, init
from gharial.cli.simulate import simulate
from gharial.cli.story import demo
from gharial.cli.trace import trace


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gharial")
def main() -> None:
    """Protect the data that leaves through APIs.

    \b
    gharial demo                                  see it work, in under a minute
    gharial init --upstream http://127.0.0.1:9000 --sample answer.json
    gharial up                                    put it before that API
    gharial status                                see what it does
    """


for command in (up, gate, status, doctor, init, keys, config, policy, record, clients, incidents, reveal, trace):
    main.add_command(command)

for command in (protect, erase, demo, simulate):
    main.add_command(command)

for command in (publish, history, rollback, canary, replay):
    policy.add_command(command)
