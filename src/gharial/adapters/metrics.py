"""The gate's counters in Prometheus' text format. Labels are names of the configuration and codes, never values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gharial.gate.publishing import Readiness
from gharial.gate.services import Counters

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class GateCollector(Collector):
    """Reads the counters when it is asked; keeps none of its own."""

    def __init__(self, counters: Counters, readiness: Readiness, in_flight: Callable[[], int]) -> None:
        self._counters = counters
        self._readiness = readiness
        self._in_flight = in_flight

    def collect(self) -> Iterable[Metric]:
        """Yield one family after the other."""
        found = self._counters
        yield _labelled("gharial_forwarded", "Answers forwarded as a plan says, by route.", "route", found.forwarded)
        yield _labelled("gharial_passed", "Answers of routes with pass: true.", "route", found.passed)
        yield _labelled("gharial_refused", "Calls refused, by code.", "code", found.refused)
        yield _labelled(
            "gharial_shadow_would_change", "Answers that enforcing would change.", "route", found.shadow_would_change
        )
        yield _labelled(
            "gharial_shadow_would_refuse", "Answers that enforcing would refuse.", "route", found.shadow_would_refuse
        )
        yield _labelled("gharial_revealed", "Values that the reveal API gave in clear, by tag.", "tag", found.revealed)
        yield _labelled("gharial_reveal_refused", "Values that it refused, by why.", "why", found.reveal_refused)
        yield from self._plain()

    def _plain(self) -> Iterator[Metric]:
        found = self._counters
        yield _plain("gharial_abandoned", "Calls that ended before their answer was decided.", found.abandoned)
        yield _plain("gharial_people_unknown", "Records whose person nothing names.", found.people_unknown)
        yield _plain("gharial_headers_withheld", "Response headers that stayed here.", found.headers_withheld)
        yield _plain("gharial_audit_lines_lost", "Audit lines that could not be written.", found.audit_lines_lost)
        yield _plain("gharial_bytes_without_plan", "Bytes that no plan has seen; reads zero.", found.bytes_without_plan)
        yield _plain("gharial_policies_published", "Publications that became active.", self._readiness.published)
        yield _plain("gharial_policies_rejected", "Publications that did not.", self._readiness.rejected)
        ready = GaugeMetricFamily("gharial_policies_ready", "1 if the last publication became active.")
        ready.add_metric([], 0 if self._readiness.problems else 1)
        yield ready
        in_flight = GaugeMetricFamily("gharial_in_flight", "Exchanges under way.")
        in_flight.add_metric([], self._in_flight())
        yield in_flight


def _labelled(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _plain(name: str, text: str, value: int) -> Metric:
    family = CounterMetricFamily(name, text)
    family.add_metric([], value)
    return family


def render(collector: GateCollector) -> bytes:
    """Return the metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return bytes(generate_latest(registry))
