"""A server like an IOC: a furnace, with a set point, a readback, alarms and limits. `python examples/ioc.py`"""

import asyncio

from pvafast import PV, Server
from pvafast.normative import Metadata, NTEnum, NTScalar
from pvafast.server import Call, Put, Refused

ROOM = 20.0

temperature = PV(
    NTScalar("double", display=True, form=True, value_alarm=True),
    ROOM,
    display={"units": "C", "precision": 1, "description": "at the sample", "limitLow": 0, "limitHigh": 120},
    value_alarm={
        "active": True, "lowAlarmLimit": 5, "lowWarningLimit": 10, "highWarningLimit": 90, "highAlarmLimit": 95,
        "lowAlarmSeverity": 2, "lowWarningSeverity": 1, "highWarningSeverity": 1, "highAlarmSeverity": 2,
    },
)  # fmt: skip
setpoint = PV(
    NTScalar("double", display=True, control=True),
    ROOM,
    units="C",
    control={"limitLow": 10, "limitHigh": 100},
)
heater = PV(NTEnum(["off", "on"]), "off")
note = PV(NTScalar("string"), "", writable=True)  # whatever clients put is posted
settle = PV()  # has no value, it answers calls


@setpoint.on_put
def check(put: Put) -> None:
    """Nothing is posted but what is posted here: only the value is taken, not what else a client may have put."""
    control, x = setpoint.value.control, float(put.value)
    if not control.limit_low <= x <= control.limit_high:
        raise Refused(f"{x:g} is outside of {control.limit_low:g} to {control.limit_high:g}")
    setpoint.post(x)


@heater.on_put
def switch(put: Put) -> None:
    if put.value.choice is None:
        raise Refused(f"{put.value} is none of {', '.join(put.value.choices)}")
    put.post()


@settle.on_rpc
async def wait(call: Call) -> float:
    """A handler may take its time, if it is a coroutine: the client has its answer when it returns."""
    within = call.arguments.get("within", 1.0)
    while abs(temperature.value - setpoint.value) > within:
        await asyncio.sleep(0.1)
    return float(temperature.value)


def alarm(pv: PV, x: float) -> Metadata:
    """Severity and message of a value, as a record has them, by the limits that the PV shows to its clients."""
    limits = pv.value.value_alarm
    if x >= limits.high_alarm_limit:
        return {"severity": limits.high_alarm_severity, "message": "HIHI"}
    if x <= limits.low_alarm_limit:
        return {"severity": limits.low_alarm_severity, "message": "LOLO"}
    if x >= limits.high_warning_limit:
        return {"severity": limits.high_warning_severity, "message": "HIGH"}
    if x <= limits.low_warning_limit:
        return {"severity": limits.low_warning_severity, "message": "LOW"}
    return {"severity": 0, "message": ""}


async def scan(period: float = 0.1) -> None:
    """What an IOC does periodically: read the hardware, post what it says. This hardware is a sum."""
    x = ROOM
    while True:
        x += 0.2 * ((setpoint.value if heater.value.choice == "on" else ROOM) - x)
        temperature.post(x, **alarm(temperature, x))
        await asyncio.sleep(period)


async def main() -> None:
    pvs = {
        "furnace:temperature": temperature,
        "furnace:setpoint": setpoint,
        "furnace:heater": heater,
        "furnace:note": note,
        "furnace:settle": settle,
    }
    async with Server(pvs) as server:
        print(f"{', '.join(server.names())} on port {server.port}", flush=True)
        await scan()


if __name__ == "__main__":
    asyncio.run(main())
