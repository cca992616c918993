"""Losses: what the updates of a subscription tell of what did not come, or came wrong."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SECOND = 1_000_000_000
TYPE = {
    "uniqueId": "int32",
    "dataTimeStamp": {"secondsPastEpoch": "int64", "nanoseconds": "int32"},
    "timeStamp": {"secondsPastEpoch": "int64", "nanoseconds": "int32"},
    "value": "double",
}
# Numbers of its nodes: 1 uniqueId, 2 dataTimeStamp, 3 and 4 in it, 5 timeStamp, 6 and 7 in it, 8 value.
START = 1_700_000_000
EPICS = 631_152_000  # 1990

Make = Callable[..., Any]


@pytest.fixture
def make(backend: SimpleNamespace) -> Make:
    """An Update of the type, with the fields given."""
    fd = backend.introspection.FieldDesc.of(TYPE)

    def made(fields: dict[str, Any], overrun: tuple[int, ...] = (), time: Any = None, type: Any = fd) -> Any:
        value = backend.value.Value(type, fields)
        return backend.monitor.Update(None, None, value, backend.bitset.BitSet(overrun), time)

    return made


@pytest.fixture
def losses(backend: SimpleNamespace) -> Any:
    return backend.losses.Losses()


def frames(losses: Any, make: Make, *came: tuple[int, float]) -> Any:
    """(uniqueId, seconds of its time stamp) of each."""
    for number, at in came:
        ns = round(at * SECOND)
        fields = {
            "uniqueId": number,
            "timeStamp.secondsPastEpoch": ns // SECOND,
            "timeStamp.nanoseconds": ns % SECOND,
        }
        losses.add(make(fields))
    return losses


def numbers(losses: Any) -> tuple[int, int, int, int, int]:
    return losses.frames, losses.missing, losses.duplicates, losses.late, losses.restarts


def test_nothing_lost(losses: Any, make: Make) -> None:
    for i in range(101):
        fields = {"value": 0.5 * i, "timeStamp.secondsPastEpoch": START + i, "timeStamp.nanoseconds": 5}
        losses.add(make(fields, time=7 + i * SECOND // 2))
    assert losses.updates == 101
    assert (losses.rate, losses.stamp_rate, losses.frame_rate) == (2.0, 1.0, None)
    assert numbers(losses) == (0, 0, 0, 0, 0)
    assert (losses.overruns, losses.time_back, losses.furthest_back) == ({}, 0, 0)
    assert str(losses) == "101 updates, 2 Hz, 1 Hz by their time stamps"
    assert repr(losses) == "<Losses 101 updates>"


def test_overruns_are_counted_by_field(losses: Any, make: Make) -> None:
    losses.add(make({"value": 1.0}, overrun=(8,)))
    losses.add(make({"value": 1.0}, overrun=(5, 8)))
    losses.add(make({"value": 1.0}, overrun=(0,)))
    losses.add(make({"value": 1.0}))
    assert losses.overruns == {
        "value": 3,
        "timeStamp.secondsPastEpoch": 2,
        "timeStamp.nanoseconds": 2,
        "uniqueId": 1,
        "dataTimeStamp.secondsPastEpoch": 1,
        "dataTimeStamp.nanoseconds": 1,
    }
    first, second = str(losses).splitlines()
    assert first == "4 updates"
    assert second.startswith("overruns: value ×3, timeStamp.nanoseconds ×2, ")
    assert repr(losses) == "<Losses 4 updates, overruns of 6 fields>"


def test_time_stamps_that_went_back(losses: Any, make: Make) -> None:
    for at in (10.0, 11.0, 9.5, 9.5, 12.0, 11.75):
        ns = round(at * SECOND)
        losses.add(make({"timeStamp.secondsPastEpoch": ns // SECOND, "timeStamp.nanoseconds": ns % SECOND}))
    assert (losses.time_back, losses.furthest_back) == (2, SECOND * 3 // 2)
    assert losses.stamp_rate is None
    assert str(losses) == "6 updates\ntime stamps went back ×2, by up to 1.5 s"


def test_time_stamps_that_did_not_come_or_are_not_set(losses: Any, make: Make) -> None:
    losses.add(make({"timeStamp.secondsPastEpoch": START}))
    losses.add(make({"value": 2.0}))  # another field alone: the time stamp that it holds is that of before
    losses.add(make({"timeStamp": {"secondsPastEpoch": 0, "nanoseconds": 0}}))
    losses.add(make({"timeStamp.secondsPastEpoch": 2**63 - 1}))  # no ns of 64 bits
    losses.add(make({"timeStamp.secondsPastEpoch": -(2**63)}))
    losses.add(make({"timeStamp.secondsPastEpoch": START}))
    assert losses.time_back == 0
    assert losses.updates == 6


def test_missing_frames(losses: Any, make: Make) -> None:
    frames(losses, make, *((n, START + n) for n in (1, 2, 5, 6, 106)))
    assert numbers(losses) == (5, 2 + 99, 0, 0, 0)
    assert str(losses).splitlines()[1] == "5 frames: 101 missing (95 %)"
    assert repr(losses) == "<Losses 5 updates, 101 missing (95 %)>"


def test_updates_without_a_new_number_are_no_frames(losses: Any, make: Make) -> None:
    fields = {"uniqueId": 3}
    update = make(fields)
    losses.add(update)
    update.value.unmark()
    update.value["value"] = 2.0
    losses.add(update)
    assert (losses.updates, *numbers(losses)) == (2, 1, 0, 0, 0, 0)
    update.value.unmark()
    update.value.mark("")  # the whole structure
    losses.add(update)
    assert numbers(losses) == (2, 0, 1, 0, 0)


def test_a_frame_that_comes_again_is_a_duplicate(losses: Any, make: Make) -> None:
    frames(losses, make, (7, START), (7, START), (8, START + 1), (7, START), (8, START + 1), (9, START + 2))
    assert numbers(losses) == (6, 0, 3, 0, 0)
    assert losses.time_back == 1
    assert str(losses).splitlines()[1] == "6 frames: 3 duplicates"


def test_a_frame_that_comes_late_is_not_missing(losses: Any, make: Make) -> None:
    frames(losses, make, (7, START), (10, START + 3), (9, START + 2), (9, START + 2), (11, START + 4))
    assert numbers(losses) == (5, 1, 1, 1, 0)


def test_late_within_64(losses: Any, make: Make) -> None:
    frames(losses, make, (1, START + 1), (101, START + 101), (38, START + 38))
    assert numbers(losses) == (3, 98, 0, 1, 0)
    frames(losses, make, (39, START + 39), (165, START + 165), (102, START + 102), (164, START + 164))
    assert numbers(losses) == (7, 97 + 63 - 2, 0, 4, 0)


@pytest.mark.parametrize("again", [0, 1, 2, 95, 100])
def test_a_detector_that_starts_again_has_newer_data(losses: Any, make: Make, again: int) -> None:
    """Its numbers go back, also to where they were a moment ago, and none of them is a duplicate."""
    frames(losses, make, *((n, START + n) for n in range(1, 101)))
    frames(losses, make, *((again + n, START + 200 + n) for n in range(50)))
    assert numbers(losses) == (150, 0, 0, 0, 1)
    assert str(losses).splitlines()[1] == "150 frames: numbered anew"


def test_single_shots_are_all_number_one(losses: Any, make: Make) -> None:
    frames(losses, make, (1, START), (1, START + 5), (1, START + 10))
    assert numbers(losses) == (3, 0, 0, 0, 2)


def test_the_time_of_the_data_counts_where_it_is_set(losses: Any, make: Make) -> None:
    """A gateway may stamp a frame that it sends again; an areaDetector without a data time says 1990."""

    def frame(number: int, data: int, at: int) -> None:
        fields = {
            "uniqueId": number,
            "dataTimeStamp.secondsPastEpoch": data,
            "timeStamp.secondsPastEpoch": at,
        }
        losses.add(make(fields))

    frame(5, START, START)
    frame(5, START, START + 7)
    assert numbers(losses) == (2, 0, 1, 0, 0)
    losses.gap()
    frame(5, EPICS, START + 8)
    frame(5, EPICS, START + 9)
    assert numbers(losses) == (4, 0, 1, 0, 1)


def test_without_time_stamps_numbers_alone_tell(losses: Any, make: Make) -> None:
    for number in (1, 2, 3, 3, 2, 1, 2, 3, 500, 400):
        losses.add(make({"uniqueId": number}))
    # 3 and 2 again, then 1: begun anew, as with 400.
    assert numbers(losses) == (10, 496, 2, 0, 2)


def test_nobody_numbers_them(losses: Any, make: Make) -> None:
    frames(losses, make, *((0, START + n) for n in range(5)))
    assert numbers(losses) == (5, 0, 0, 0, 0)
    assert str(losses).splitlines()[1] == "5 frames: none missing"


@pytest.mark.parametrize(
    ("before", "after", "missing"),
    [(2**31 - 1, -(2**31), 0), (2**31 - 2, -(2**31) + 3, 4), (2**31 - 1, 0, 0), (2**31 - 1, 1, 1)],
)
def test_counters_wrap(losses: Any, make: Make, before: int, after: int, missing: int) -> None:
    frames(losses, make, (before, START), (after, START + 1), (after + 1, START + 2))
    assert numbers(losses) == (3, missing, 0, 0, 0)


def test_unsigned_and_wide_counters(losses: Any, make: Make, backend: SimpleNamespace) -> None:
    wide = backend.introspection.FieldDesc.of({"uniqueId": "uint64"})
    for number in (2**32 - 1, 0, 1, 2**63 - 1, 2**64 - 1, 2**63 - 1):
        losses.add(make({"uniqueId": number}, type=wide))
    # 2**64 - 1 has no place in 64 bits with a sign: it is passed over.
    assert numbers(losses) == (6, 0, 1, 0, 1)
    signed = backend.introspection.FieldDesc.of({"uniqueId": "int64"})
    losses.gap()
    for number in (2**63 - 1, -(2**63), 2**63 - 1):
        losses.add(make({"uniqueId": number}, type=signed))
    assert losses.missing == 0
    assert losses.restarts == 3


def test_jumps_are_no_losses(losses: Any, make: Make) -> None:
    frames(losses, make, (1, START), (2**24 + 1, START + 1), (2**25 + 2, START + 2))
    assert numbers(losses) == (3, 2**24 - 1, 0, 0, 1)


def test_nothing_is_concluded_over_a_gap(losses: Any, make: Make) -> None:
    frames(losses, make, (1, START), (3, START + 2))
    losses.gap()
    frames(losses, make, (50, START + 50), (52, START + 52))
    losses.gap()
    frames(losses, make, (52, START + 52))
    assert numbers(losses) == (5, 2, 0, 0, 0)


def test_rates(backend: SimpleNamespace, make: Make) -> None:
    losses = backend.losses.Losses(per_second=1000)
    assert losses.rate is None
    losses.add(make({"uniqueId": 1}, time=500))
    assert losses.rate is None
    losses.add(make({"value": 1.0}, time=750))
    losses.add(make({"uniqueId": 2}, time=1000))
    losses.add(make({"uniqueId": 3}, time=None))  # a connection that was told no time
    losses.add(make({"uniqueId": 4}, time=2**70))
    assert (losses.rate, losses.frame_rate) == (4.0, 2.0)
    assert str(losses) == "5 updates, 4 Hz\n4 frames: none missing"
    with pytest.raises(ValueError, match="per_second 0"):
        backend.losses.Losses(per_second=0)


def test_types_of_other_shapes(losses: Any, make: Make, backend: SimpleNamespace) -> None:
    of = backend.introspection.FieldDesc.of
    for type, fields in (
        (of("double"), 1.5),
        (of({"uniqueId": "string", "timeStamp": "int64"}), {"uniqueId": "7", "timeStamp": 3}),
        (
            of({"uniqueId": {"a": "int32"}, "timeStamp": {"secondsPastEpoch": "double"}}),
            {"uniqueId": {"a": 1}},
        ),
        (of({"uniqueId": "int32[]"}), {"uniqueId": [1, 2]}),
        (of({}), {}),
        (
            of({**{f"f{i}": "int8" for i in range(200)}, "uniqueId": "int16"}),
            {"uniqueId": 4},
        ),  # beyond a word of bits
        (of({"timeStamp": {"nanoseconds": "int32"}}), {"timeStamp.nanoseconds": 5}),
    ):
        losses.add(make(fields, type=type))
    assert numbers(losses) == (1, 0, 0, 0, 0)
    assert losses.updates == 7


def test_a_view_of_a_part(losses: Any, make: Make, backend: SimpleNamespace) -> None:
    """An Update may be made with any Value, also with one that lies in another."""
    outer = backend.value.Value({"x": "int8", "inner": {"uniqueId": "int32"}})
    outer["inner.uniqueId"] = 4
    for number in (4, 6):
        outer["inner.uniqueId"] = number
        losses.add(backend.monitor.Update(None, None, outer["inner"]))
    assert numbers(losses) == (2, 1, 0, 0, 0)


def test_only_updates(losses: Any, backend: SimpleNamespace) -> None:
    with pytest.raises(TypeError):
        losses.add({"uniqueId": 1})
    with pytest.raises(TypeError, match="an update of a Value is needed, not int"):
        losses.add(backend.monitor.Update(None, None, 5))
    assert losses.updates == 0


def test_names_of_overruns_are_bounded(losses: Any, make: Make, backend: SimpleNamespace) -> None:
    """16,384 names, whatever types a peer sends."""
    for block in range(3):
        fields = {f"f{block}_{i}": "int8" for i in range(8000)}
        losses.add(make({}, overrun=(0,), type=backend.introspection.FieldDesc.of(fields)))
    assert len(losses.overruns) == 16_384
    losses.add(make({}, overrun=(1,), type=backend.introspection.FieldDesc.of({"f0_1": "int8"})))
    assert losses.overruns["f0_1"] == 2


WILD = st.one_of(st.integers(0, 70), st.integers(-(2**31), 2**31 - 1), st.integers(2**31 - 70, 2**31 - 1))


@given(
    came=st.lists(
        st.tuples(
            WILD,
            st.integers(-3, 80) | st.integers(-(2**63), 2**63 - 1),
            st.sampled_from([0, 0, 0, EPICS, START]),
            st.integers(0, 2**9 - 1),
            st.sets(st.integers(0, 9), max_size=2),
            st.none() | st.integers(0, 100) | st.integers(-(2**65), 2**65) | st.just(1.5),
        ),
        max_size=12,
    ),
    gap=st.integers(0, 12),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_twins_agree(
    twins: tuple[SimpleNamespace, SimpleNamespace], came: list[tuple[Any, ...]], gap: int
) -> None:
    told = []
    for backend in twins:
        losses = backend.losses.Losses()
        type = backend.introspection.FieldDesc.of(TYPE)
        for i, (number, seconds, data, marks, overrun, time) in enumerate(came):
            if i == gap:
                losses.gap()
            value = backend.value.Value(type, {"uniqueId": number, "timeStamp.secondsPastEpoch": seconds})
            value["dataTimeStamp.secondsPastEpoch"] = data
            value.unmark()
            for bit in range(9):
                if marks >> bit & 1:
                    value.mark(type.names[bit])
            losses.add(backend.monitor.Update(None, None, value, backend.bitset.BitSet(overrun), time))
        told.append(
            (
                *numbers(losses),
                losses.updates,
                losses.time_back,
                losses.furthest_back,
                losses.rate,
                losses.frame_rate,
                losses.stamp_rate,
                losses.overruns,
                str(losses),
                repr(losses),
            )
        )
    assert told[0] == told[1]
    frames, missing, _, late, _ = told[0][:5]
    assert missing >= 0
    assert late <= frames
