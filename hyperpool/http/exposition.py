"""Text for Prometheus: its text format 0.0.4, and OpenMetrics 1.0.

A scrape of many pools must not cost what it measures. What stays the same from one scrape to the next (names, labels)
is made once; what is left to do for each line takes no Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from hyperpool.http.lines import histograms
from hyperpool.stats import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

    from hyperpool.http.lines import Times

Labels: TypeAlias = "tuple[str, ...]"

FINE: Final = range(7, 25)
"""Bounds that a histogram may show: powers of two from 0.128 ms to 17 s."""

COARSE: Final = range(8, 28, 2)
"""Others: powers of four from 0.256 ms to 67 s."""

_AT_ONCE: Final = 50
"""Histograms that are written until the relay has its turn."""


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


class Writer:
    """Writes the samples of metrics, and remembers the templates of those whose labels stay the same."""

    def __init__(self) -> None:
        self._templates: dict[tuple[Metric, Hashable], str] = {}
        self._histograms: dict[tuple[Metric, Hashable], list[_Lines]] = {}
        self._used: set[tuple[Metric, Hashable]] = set()

    def begin(self) -> None:
        """A scrape begins: what the one before has not used is forgotten."""
        used = self._used
        self._templates = {key: text for key, text in self._templates.items() if key in used}
        self._histograms = {key: lines for key, lines in self._histograms.items() if key in used}
        used.clear()

    def samples(
        self,
        metric: Metric,
        version: Hashable,
        labels: Callable[[], Iterable[Labels]],
        values: Iterable[float],
    ) -> bytes:
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
            texts = (_label_text(metric.labels, one).replace("%", "%%") for one in labels())
            template = "".join(f"{metric.sample}{text} %s\n" for text in texts)
            self._templates[key] = template
        self._used.add(key)
        return (template % tuple(values)).encode()

    def histograms(
        self, metric: Metric, version: Hashable, labels: Iterable[Labels], parts: list[Sequence[Times]]
    ) -> Iterator[bytes]:
        """The lines of a histogram, in pieces that take no longer than the relay can wait.

        Args:
            metric: the metric.
            version: another one says that the labels are others.
            labels: the values of the labels of each sample.
            parts: of each sample, its times; all together if there are several.
        """
        key = (metric, version)
        lines = self._histograms.get(key)
        if lines is None:
            lines = self._histograms[key] = [_Lines(_histogram_text(metric, one)) for one in labels]
        self._used.add(key)
        shown = tuple(metric.shown)
        for start in range(0, len(lines), _AT_ONCE):
            end = start + _AT_ONCE
            yield b"".join(
                [one.of(shown, times) for one, times in zip(lines[start:end], parts[start:end], strict=True)]
            )


class _Lines:
    """The lines of one histogram, which are written again only if a time has been added since.

    Args:
        text: what stands in front of its numbers.
    """

    __slots__ = ("_buckets", "_seconds", "_text", "_written")

    def __init__(self, text: tuple[bytes, ...]) -> None:
        self._text = text
        self._buckets: list[int] = []
        self._seconds = 0.0
        self._written = b""

    def of(self, shown: tuple[int, ...], times: Sequence[Times]) -> bytes:
        """The lines as they are now. Those of several parts are always written: to compare them costs as much."""
        if len(times) != 1:
            self._buckets = []
            return histograms([self._text], shown, [times])
        ((buckets, seconds),) = times
        # Most that have changed differ in the sum, which is the quicker to compare.
        if seconds != self._seconds or buckets != self._buckets:
            self._written = histograms([self._text], shown, [times])
            self._buckets, self._seconds = buckets.copy(), seconds
        return self._written


def _histogram_text(metric: Metric, labels: Labels) -> tuple[bytes, ...]:
    """What stands in front of the numbers of a histogram."""
    text = _label_text(metric.labels, labels)
    start = f"{metric.name}_bucket{text[:-1]},le=" if text else f"{metric.name}_bucket{{le="
    ends = (*(f"{BOUNDS[place]:g}" for place in metric.shown), "+Inf")
    lines = (
        *(f'{start}"{end}"}} ' for end in ends),
        *(f"{metric.name}_{part}{text} " for part in ("count", "sum")),
    )
    return tuple(line.encode() for line in lines)


def _label_text(names: tuple[str, ...], values: Labels) -> str:
    """Labels as they stand behind a name."""
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    value = value.encode(errors="backslashreplace").decode()
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def merged(found: Iterable[tuple[Labels, float]]) -> Mapping[Labels, float]:
    """Samples with the same labels are added up."""
    result: dict[Labels, float] = {}
    for labels, value in found:
        result[labels] = result.get(labels, 0) + value
    return result
