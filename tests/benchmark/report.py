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
        """Operations per second."""
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
        """Return the median of the paired ratios of a quantile of the latencies."""
        pairs = zip(self.measurements, self.references, strict=True)
        return median(mine.quantile(part) / other.quantile(part) for mine, other in pairs)

    def rate_ratio(self) -> float:
        """Return the median of the paired ratios of the rates."""
        pairs = zip(self.measurements, self.references, strict=True)
        return median(mine.rate / reference.rate for mine, reference in pairs)

    def text(self) -> str:
        """Return one line of the table."""
        measured = self.measurements
        return (
            f"{self.mode:28}{self.server:29}"
            f"{median(item.cost for item in measured):8.1f}"
            f"{median(self.ratios):7.2f} {span(self.ratios):>11}"
            f"{'' if self.target is None else format(self.target, '.2f'):>7}"
            f"{median(item.rate for item in measured):9,.0f} {self.rate_ratio():5.2f}"
            f"{median(item.quantile(0.5) for item in measured):8.0f} {self.latency_ratio(0.5):5.2f}"
            f"{median(item.quantile(0.99) for item in measured):8.0f}"
            f" {self.latency_ratio(0.99):5.2f}"
            f"{median(item.load_cpu_seconds / item.window.seconds for item in measured):6.0%}"
        )


HEADER = (
    f"{'mode':28}{'server':29}{'CPU us':>8}{'ratio':>7} {'range':>11}{'target':>7}"
    f"{'per s':>9} {'ratio':>5}{'p50 us':>8} {'ratio':>5}{'p99 us':>8} {'ratio':>5}{'load':>6}"
)


def span(values: Sequence[float]) -> str:
    """Return the smallest and the largest."""
    return f"{min(values):.2f}-{max(values):.2f}"


def plot(rows: Sequence[Row], path: str) -> None:
    """Draw the ratios of all but the bare servers, with their ranges and targets."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row.measurements is not row.references]
    modes = list(dict.fromkeys(row.mode for row in rows))
    servers = list(dict.fromkeys(row.server for row in rows))
    figure, axes = pyplot.subplots(figsize=(9, 1 + 1.1 * len(modes)))
    height = 0.8 / len(servers)
    for index, server in enumerate(servers):
        mine = [row for row in rows if row.server == server]
        places = [modes.index(row.mode) + (index + 0.5) * height - 0.4 for row in mine]
        middles = [median(row.ratios) for row in mine]
        below = [middle - min(row.ratios) for middle, row in zip(middles, mine, strict=True)]
        above = [max(row.ratios) - middle for middle, row in zip(middles, mine, strict=True)]
        axes.barh(places, middles, height, xerr=(below, above), label=server)
    for row in rows:
        if row.target is not None:
            place = modes.index(row.mode)
            axes.plot([row.target] * 2, [place - 0.45, place + 0.45], "k--", linewidth=1)
    axes.set_xscale("log")
    ticks = [1, 1.5, 2, 3, 5, 10, 20]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(left=0.8)
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_yticks(range(len(modes)), modes)
    axes.invert_yaxis()
    axes.set_xlabel("CPU time per operation, times that of the bare server; dashed: the target")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    figure.savefig(path, bbox_inches="tight")
