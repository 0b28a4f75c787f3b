"""What came out: paired ratios, their medians and ranges, as text and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tests.benchmark.load import Window


@dataclass(frozen=True, slots=True)
class Measurement:
    """One window of one server, and what it cost."""

    window: Window
    cpu_seconds: float
    load_cpu_seconds: float

    @property
    def cost(self) -> float:
        """CPU microseconds of the server per operation."""
        return self.cpu_seconds / self.window.operations * 1e6

    @property
    def rate(self) -> float:
        return self.window.operations / self.window.seconds

    def quantile(self, part: float) -> float:
        """Microseconds that this part of the latencies doesn't exceed."""
        latencies = sorted(self.window.latencies)
        return latencies[int(part * (len(latencies) - 1))] * 1e6


@dataclass(frozen=True, slots=True)
class Row:
    """A server in a mode, beside the server that it is measured by."""

    mode: str
    server: str
    target: float | None
    measurements: Sequence[Measurement]
    references: Sequence[Measurement]

    @property
    def ratios(self) -> Sequence[float]:
        """CPU time per operation, as the multiple of the reference's in the same cycle."""
        pairs = zip(self.measurements, self.references, strict=True)
        return [mine.cost / reference.cost for mine, reference in pairs]

    def latency_ratio(self, part: float) -> float:
        pairs = zip(self.measurements, self.references, strict=True)
        return median(mine.quantile(part) / other.quantile(part) for mine, other in pairs)

    def rate_ratio(self) -> float:
        pairs = zip(self.measurements, self.references, strict=True)
        return median(mine.rate / reference.rate for mine, reference in pairs)

    def text(self) -> str:
        """Return one line of the table."""
        measured = self.measurements
        return (
            f"{self.mode:28}{self.server:30}"
            f"{median(item.cost for item in measured):8.1f}"
            f"{median(self.ratios):7.2f} {min(self.ratios):5.2f}-{max(self.ratios):4.2f}"
            f"{'' if self.target is None else format(self.target, '.2f'):>8}"
            f"{median(item.rate for item in measured):9.0f} {self.rate_ratio():5.2f}"
            f"{median(item.quantile(0.5) for item in measured):8.0f} {self.latency_ratio(0.5):5.2f}"
            f"{median(item.quantile(0.99) for item in measured):8.0f}"
            f" {self.latency_ratio(0.99):5.2f}"
            f"{median(item.load_cpu_seconds / item.window.seconds for item in measured):7.0%}"
        )


HEADER = (
    f"{'mode':28}{'server':30}{'CPU us':>8}{'ratio':>7} {'range':>10}{'target':>8}"
    f"{'per s':>9} {'ratio':>5}{'p50 us':>8} {'ratio':>5}{'p99 us':>8} {'ratio':>5}{'load':>7}"
)
