"""What got slower, or faster, from one result to another, beyond the noise.

Machines drift. The peers' code is the same in both results where their versions are: how much slower all of it got is taken out of
every ratio, and how much that scatters is part of the noise. The rest of it is how the rounds of the figure scatter.
Instructions, where both results have them, decide instead of times.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, hypot, log
from statistics import median
from typing import Any, NamedTuple

from .subjects import TWINS

LEAST = 0.05  # a change of time below this is never told
LEAST_INSTRUCTIONS = 0.01
SIGMAS = 3.0


class Change(NamedTuple):
    text: str
    subject: str
    before: float
    after: float
    ratio: float  # after ÷ before, without the machine's drift
    noise: float  # the ratio has to differ from 1 by more than this
    unit: str

    @property
    def slower(self) -> bool:
        return self.ratio > 1 + self.noise

    @property
    def faster(self) -> bool:
        return self.ratio < 1 / (1 + self.noise)

    def __str__(self) -> str:
        return (
            f"{self.text}, {self.subject}: {self.before:,.4g} → {self.after:,.4g} {self.unit}, "
            f"×{self.ratio:.3f} (noise {100 * self.noise:.1f} %)"
        )


class Comparison(NamedTuple):
    changes: list[Change]
    drift: float
    controls: int  # how many figures of peers it is known from
    gone: list[str]
    new: list[str]

    @property
    def slower(self) -> list[Change]:
        return sorted((one for one in self.changes if one.slower), key=lambda one: -one.ratio)

    @property
    def faster(self) -> list[Change]:
        return sorted((one for one in self.changes if one.faster), key=lambda one: one.ratio)

    def lines(self) -> Iterable[str]:
        """For people."""
        of = f"{self.controls} figures of peers" if self.controls else "nothing: no peer in both"
        yield f"{len(self.changes)} figures in both; the machine's drift ×{self.drift:.3f}, known from {of}"
        for name, found in (("slower", self.slower), ("faster", self.faster)):
            yield f"{name}: {len(found) or 'none'}"
            yield from (f"  {one}" for one in found)
        for name, texts in (("gone", self.gone), ("new", self.new)):
            if texts:
                yield f"{name}: {'; '.join(texts)}"


def spread(numbers: list[float]) -> float:
    """The standard deviation relative to the median, from the median distance to it: outliers do not count."""
    middle = median(numbers)
    return 1.4826 * median(abs(number - middle) for number in numbers) / middle


def compare(before: dict[str, Any], after: dict[str, Any]) -> Comparison:
    """Two results."""
    a, b = ({(one["text"], one["subject"]): one for one in result["figures"]} for result in (before, after))
    both = [key for key in a if key in b]
    peers = {
        name
        for name, version in before["versions"].items()
        if name not in TWINS and after["versions"].get(name) == version
    }
    logs = [log(median(b[key]["ns"]) / median(a[key]["ns"])) for key in both if key[1] in peers]
    drift = median(logs) if logs else 0.0
    scatter = 1.4826 * median(abs(one - drift) for one in logs) if logs else 0.0
    changes = []
    for key in both:
        if key[1] not in TWINS:
            continue
        if "instructions" in a[key] and "instructions" in b[key]:
            x, y = a[key]["instructions"], b[key]["instructions"]
            changes.append(Change(*key, x, y, y / x, LEAST_INSTRUCTIONS, "instructions"))
        else:
            x, y = median(a[key]["ns"]), median(b[key]["ns"])
            noise = max(LEAST, SIGMAS * hypot(spread(a[key]["ns"]), spread(b[key]["ns"]), scatter))
            changes.append(Change(*key, x, y, y / x / exp(drift), noise, "ns"))
    return Comparison(
        changes,
        exp(drift),
        len(logs),
        [", ".join(key) for key in a if key not in b],
        [", ".join(key) for key in b if key not in a],
    )
