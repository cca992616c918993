"""What Losses of either twin say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._py.losses import Losses


def text_of(losses: Losses) -> str:
    """A line each of updates, frames, overruns and time stamps; those with nothing to say are left out."""
    rates = [f"{si(losses.rate, 'Hz')}"] if losses.rate is not None else []
    if losses.stamp_rate is not None:
        rates.append(f"{si(losses.stamp_rate, 'Hz')} by their time stamps")
    lines = [", ".join([counted(losses.updates, "update"), *rates])]
    if losses.frames:
        lines.append(f"{counted(losses.frames, 'frame')}: {numbering(losses) or 'none missing'}")
    if losses.overruns:
        most = sorted(losses.overruns.items(), key=lambda item: (-item[1], item[0]))
        lines.append("overruns: " + ", ".join(f"{name or 'all'}{times(n)}" for name, n in most))
    if losses.time_back:
        lines.append(f"time stamps went back{times(losses.time_back)}, {furthest(losses)}")
    return "\n".join(lines)


def repr_of(losses: Losses) -> str:
    """The counts of what went wrong, in a line."""
    wrong = [numbering(losses)] if numbering(losses) else []
    if losses.overruns:
        wrong.append(f"overruns of {counted(len(losses.overruns), 'field')}")
    if losses.time_back:
        wrong.append(f"time stamps went back{times(losses.time_back)}")
    return f"<Losses {counted(losses.updates, 'update')}{''.join(f', {what}' for what in wrong)}>"


def numbering(losses: Losses) -> str:
    """What the numbers of the frames tell; "" if nothing."""
    said = []
    if losses.missing:
        part = 100 * losses.missing / (losses.frames - losses.duplicates + losses.missing)
        said.append(f"{losses.missing} missing ({part:.2g} %)")
    if losses.duplicates:
        said.append(counted(losses.duplicates, "duplicate"))
    if losses.late:
        said.append(f"{losses.late} late")
    if losses.restarts:
        said.append(f"numbered anew{times(losses.restarts)}")
    return ", ".join(said)


def furthest(losses: Losses) -> str:
    """How far time stamps went back."""
    return f"{'by up to' if losses.time_back > 1 else 'by'} {duration(losses.furthest_back / 1e9)}"


def counted(n: int, noun: str) -> str:
    """ "1 update", "2 updates"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def times(n: int) -> str:
    """ "" for once, " ×2" and so on."""
    return "" if n == 1 else f" ×{n}"


def si(number: float, unit: str) -> str:
    """Three digits with a prefix: "39.6 Hz", "1.2 kHz", "0.25 Hz"."""
    for prefix in ("", "k", "M", "G"):
        # 999.9 would be written as 1e+03.
        if number < 999.5:
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return f"{number:.3g} T{unit}" if number < 999.5 else f"{number:.0f} T{unit}"


def duration(seconds: float) -> str:
    """Seconds as "75 µs", "2.36 ms", "11.4 s", "5 min", "2.5 h"."""
    if seconds <= 0:
        return "0 s"
    for unit, scale in (("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        if seconds < scale * (999.5 if scale < 1 else 119.5):
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 60:.3g} min" if seconds < 119.5 * 60 else f"{seconds / 3600:.6g} h"
