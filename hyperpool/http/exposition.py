"""Text for Prometheus: its text format 0.0.4, and OpenMetrics 1.0.

A scrape of many pools must not cost what it measures. What stays the same from one scrape to the next (names, labels)
is made into a template once; what is left to do is ``template % values``, which takes no Python for each line.
"""

from __future__ import annotations

from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from hyperpool.buckets import BUCKETS
from hyperpool.stats import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

Labels: TypeAlias = "tuple[str, ...]"

Times: TypeAlias = "tuple[list[int], float]"
"""What a `hyperpool.stats.Histogram` holds: its buckets, and the sum of all times in seconds."""

_NONE: Final = [0] * BUCKETS

FINE: Final = range(7, 25)
"""Bounds that a histogram may show: powers of two from 0.128 ms to 17 s."""

COARSE: Final = range(8, 28, 2)
"""Others: powers of four from 0.256 ms to 67 s."""

_REACH: Final = max(*FINE, *COARSE) + 1
"""What is behind all of them is not cumulated bucket by bucket."""


@attrs.frozen(eq=False)
class Metric:
    """A metric family.

    Attributes:
        name: of the family, without what OpenMetrics puts behind the names of samples (``_total``, ``_bucket``).
        kind: ``counter``, ``gauge``, ``histogram`` or ``info``.
        about: one line for people.
        labels: names of the labels.
        shown: which bounds of a histogram are shown, as places in `hyperpool.stats.BOUNDS`.
    """

    name: str
    kind: str
    about: str
    labels: tuple[str, ...] = ()
    shown: Sequence[int] = COARSE

    @property
    def sample(self) -> str:
        """How its samples are called; for a histogram, how their names begin."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")

    def header(self, *, openmetrics: bool) -> str:
        """The lines in front of its samples."""
        # In the older format, a counter's family is called as its samples are, and there is no info.
        name = self.name if openmetrics else self.sample
        kind = "gauge" if self.kind == "info" and not openmetrics else self.kind
        return f"# HELP {name} {self.about}\n# TYPE {name} {kind}\n"


@attrs.define(eq=False)
class _HistogramText:
    """A histogram's lines.

    Attributes:
        template: takes the numbers.
        pick: those, of the sums up to each bucket.
        seconds: the sum of times that `text` was made for: it grows with each time that is counted.
        text: the lines.
    """

    template: str
    pick: Callable[[list[int]], tuple[int, ...]]
    seconds: float = -1.0
    text: str = ""


class Writer:
    """Writes the samples of metrics, and remembers the templates of those whose labels stay the same."""

    def __init__(self) -> None:
        self._templates: dict[tuple[Metric, Hashable], str] = {}
        self._histograms: dict[tuple[Metric, Labels], _HistogramText] = {}
        self._used: set[tuple[Metric, Hashable]] = set()

    def begin(self) -> None:
        """A scrape begins: what the one before has not used is forgotten."""
        used = self._used
        self._templates = {key: text for key, text in self._templates.items() if key in used}
        self._histograms = {key: text for key, text in self._histograms.items() if key in used}
        used.clear()

    def samples(
        self,
        metric: Metric,
        version: Hashable,
        labels: Callable[[], Iterable[Labels]],
        values: Iterable[float],
    ) -> str:
        """The lines of a counter, a gauge or an info.

        Args:
            metric: the metric.
            version: another one says that the labels are others.
            labels: gives the values of the labels of each sample.
            values: of each sample.
        """
        key = (metric, version)
        template = self._templates.get(key)
        if template is None:
            template = "".join(f"{metric.sample}{_label_text(metric.labels, one)} %s\n" for one in labels())
            self._templates[key] = template
        self._used.add(key)
        return template % tuple(values)

    def histogram(self, metric: Metric, labels: Labels, parts: Sequence[Times]) -> str:
        """The lines of one histogram.

        Args:
            metric: the metric.
            labels: the values of its labels.
            parts: its times; all together if there are several.
        """
        key = (metric, labels)
        self._used.add(key)
        made = self._histograms.get(key)
        if made is None:
            made = self._histograms[key] = _histogram_text(metric, labels)
        seconds = sum([seconds for _, seconds in parts])
        if seconds != made.seconds:
            found = [buckets for buckets, seconds in parts if seconds]
            buckets = found[0] if len(found) == 1 else list(map(sum, zip(*found, strict=True))) or _NONE
            first, rest = buckets[:_REACH], buckets[_REACH:]
            sums = list(accumulate(first))
            count = sums[-1] + sum(rest)
            made.text = made.template % (*made.pick(sums), count, count, seconds)
            made.seconds = seconds
        return made.text


def _histogram_text(metric: Metric, labels: Labels) -> _HistogramText:
    text = _label_text(metric.labels, labels)
    start = f"{metric.name}_bucket{text[:-1]},le=" if text else f"{metric.name}_bucket{{le="
    ends = (*(f"{BOUNDS[place]:g}" for place in metric.shown), "+Inf")
    lines = [f'{start}"{end}"}} %s\n' for end in ends]
    template = "".join((*lines, f"{metric.name}_count{text} %s\n", f"{metric.name}_sum{text} %s\n"))
    return _HistogramText(template, itemgetter(*metric.shown))


def _label_text(names: tuple[str, ...], values: Labels) -> str:
    """Labels as they stand in a template."""
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    value = value.encode(errors="backslashreplace").decode()
    value = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value.replace("%", "%%")


def merged(found: Iterable[tuple[Labels, float]]) -> Mapping[Labels, float]:
    """Samples with the same labels are added up."""
    result: dict[Labels, float] = {}
    for labels, value in found:
        result[labels] = result.get(labels, 0) + value
    return result
