"""What normative types carry beside their value: alarm, time, display, control and valueAlarm, found by name."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from .. import _backend

Value = _backend.value.Value

_NS: Final = 1_000_000_000


def number(value: Value | None, name: str, default: Any = 0) -> Any:
    """The number in a field; `default` if there is no such field, or no number in it."""
    found = fetch(value, name)
    return found if isinstance(found, int | float) else default


def whole(value: Value | None, name: str, default: int = 0) -> int:
    """The integer in a field, or the whole part of the float in it; `default` if there is none."""
    found = fetch(value, name)
    return int(found) if isinstance(found, int) or (isinstance(found, float) and isfinite(found)) else default


def text(value: Value | None, name: str, default: str = "") -> str:
    """The string in a field; `default` if there is no such field, or no string in it."""
    found = fetch(value, name)
    return found if isinstance(found, str) else default


def fetch(value: Value | None, name: str) -> Any:
    """What is in a field; None if there is no such field."""
    if value is None:
        return None
    try:
        return value[name]
    except KeyError:
        return None


def stamp(value: Value | None, name: str = "timeStamp") -> tuple[int, int]:
    """(seconds, nanoseconds) since 1970 of a time_t field; (0, 0) if there is none."""
    return whole(value, f"{name}.secondsPastEpoch"), whole(value, f"{name}.nanoseconds")


def stamp_ns(value: Value | None, name: str = "timeStamp") -> int:
    """Nanoseconds since 1970, exactly, of a time_t field; 0 if there is none."""
    seconds, nanoseconds = stamp(value, name)
    return seconds * _NS + nanoseconds


def stamp_s(value: Value | None, name: str = "timeStamp") -> float:
    """Seconds since 1970 of a time_t field, as a float (good to 0.2 µs); 0.0 if there is none."""
    seconds, nanoseconds = stamp(value, name)
    return seconds + nanoseconds * 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """How a value is meant to be shown; what its server did not send is None or "".

    limit_low, limit_high: in the units of the value. precision: digits after the point. form: "Decimal", "Hex"...
    (QSRV, pvxs), the chosen one. format: the printf format that display_t of pvDataCPP has instead.
    """

    limit_low: float | None = None
    limit_high: float | None = None
    description: str = ""
    units: str = ""
    precision: int | None = None
    form: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The range that a value can be set to; None where the server did not send it."""

    limit_low: float | None = None
    limit_high: float | None = None
    min_step: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueAlarm:
    """Where a value raises alarms, and of which severity; None where the server did not send it."""

    active: bool = False
    low_alarm_limit: float | None = None
    low_warning_limit: float | None = None
    high_warning_limit: float | None = None
    high_alarm_limit: float | None = None
    low_alarm_severity: int | None = None
    low_warning_severity: int | None = None
    high_warning_severity: int | None = None
    high_alarm_severity: int | None = None
    hysteresis: float | None = None


_CONTROL: Final = {"limit_low": "limitLow", "limit_high": "limitHigh", "min_step": "minStep"}
_VALUE_ALARM: Final = {
    "low_alarm_limit": "lowAlarmLimit",
    "low_warning_limit": "lowWarningLimit",
    "high_warning_limit": "highWarningLimit",
    "high_alarm_limit": "highAlarmLimit",
    "low_alarm_severity": "lowAlarmSeverity",
    "low_warning_severity": "lowWarningSeverity",
    "high_warning_severity": "highWarningSeverity",
    "high_alarm_severity": "highAlarmSeverity",
    "hysteresis": "hysteresis",
}


class Meta:
    """The alarm, the time and the rest of a value, beside it. Read from `raw` when asked for.

    raw: the Value that it was read from. Fields that the server did not send read as 0, "" or None.
    """

    __slots__ = ()

    raw: Value | None

    @property
    def severity(self) -> int:
        """0 no alarm, 1 minor, 2 major, 3 invalid, 4 undefined."""
        return whole(self.raw, "alarm.severity")

    @property
    def status(self) -> int:
        """0 none, 1 device, 2 driver, 3 record, 4 database, 5 configuration, 6 undefined, 7 client."""
        return whole(self.raw, "alarm.status")

    @property
    def message(self) -> str:
        """The text of the alarm."""
        return text(self.raw, "alarm.message")

    @property
    def timestamp(self) -> float:
        """Seconds since 1970 UTC; 0.0 if there is no time. A float resolves 0.2 µs: see `timestamp_ns`."""
        return stamp_s(self.raw)

    @property
    def timestamp_ns(self) -> int:
        """Nanoseconds since 1970 UTC, exactly as sent; 0 if there is no time."""
        return stamp_ns(self.raw)

    @property
    def raw_stamp(self) -> tuple[int, int]:
        """(seconds, nanoseconds) as they were sent."""
        return stamp(self.raw)

    @property
    def user_tag(self) -> int:
        """timeStamp.userTag: a pulse number, at some places."""
        return whole(self.raw, "timeStamp.userTag")

    @property
    def units(self) -> str:
        """display.units."""
        return text(self.raw, "display.units")

    @property
    def description(self) -> str:
        """display.description, else the descriptor."""
        return text(self.raw, "display.description") or text(self.raw, "descriptor")

    @property
    def display(self) -> Display | None:
        """display, in whichever form it came; None if it did not."""
        display = fetch(self.raw, "display")
        if not isinstance(display, Value):
            return None
        choices, index = fetch(display, "form.choices"), whole(display, "form.index", -1)
        known = isinstance(choices, list) and 0 <= index < len(choices)
        # A precision that is missing is not one of 0.
        precision = whole(display, "precision", -1)
        return Display(
            limit_low=number(display, "limitLow", None),
            limit_high=number(display, "limitHigh", None),
            description=text(display, "description"),
            units=text(display, "units"),
            precision=None if precision < 0 else precision,
            form=str(choices[index]) if known else "",
            format=text(display, "format"),
        )

    @property
    def control(self) -> Control | None:
        """control; None if it did not come."""
        found = fetch(self.raw, "control")
        if not isinstance(found, Value):
            return None
        return Control(**{ours: number(found, theirs, None) for ours, theirs in _CONTROL.items()})

    @property
    def value_alarm(self) -> ValueAlarm | None:
        """valueAlarm; None if it did not come."""
        found = fetch(self.raw, "valueAlarm")
        if not isinstance(found, Value):
            return None
        limits = {ours: number(found, theirs, None) for ours, theirs in _VALUE_ALARM.items()}
        return ValueAlarm(active=bool(number(found, "active")), **limits)
