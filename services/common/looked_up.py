"""Metrics that are looked up in a database when Prometheus asks, instead of counted."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

KEPT_SECONDS = 3.0  # whoever asks more often than this costs no more

Sample = tuple[tuple[str, ...], float]


class Gauge:
    """A gauge that is looked up: its name, what it says, its labels."""

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...]) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = labels

    def family(self, samples: Iterable[Sample] = ()) -> Metric:
        """The gauge with values."""
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.labels)
        for labels, value in samples:
            family.add_metric(labels, value)
        return family


class LookedUp(Collector):
    """Gauges whose values one function gives by their names; none are shown while it fails."""

    def __init__(self, gauges: Iterable[Gauge], look: Callable[[], Mapping[str, Iterable[Sample]]]) -> None:
        self._gauges = tuple(gauges)
        self._look = look
        self._lock = threading.Lock()
        self._kept: list[Metric] = []
        self._good_until = float("-inf")

    def describe(self) -> Iterable[Metric]:
        """The names, without asking."""
        return [gauge.family() for gauge in self._gauges]

    def collect(self) -> Iterable[Metric]:
        """The values now, or of a moment ago."""
        with self._lock:
            if time.monotonic() >= self._good_until:
                self._kept = self._ask()
                self._good_until = time.monotonic() + KEPT_SECONDS
            return self._kept

    def _ask(self) -> list[Metric]:
        try:
            found = self._look()
        except Exception as error:
            log.warning("metrics could not be looked up", extra={"failure": type(error).__name__})
            return []
        return [gauge.family(found.get(gauge.name, ())) for gauge in self._gauges]
