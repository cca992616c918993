"""What `pvafast decode --summary` finds in recorded sessions."""

from __future__ import annotations

import io

import pytest

import corpus
from pvafast.capture import read
from pvafast.capture.summary import Latency, Summary


def summed(name: str, *, batches: bool = True) -> Summary:
    records = read(io.BytesIO(corpus.sessions()[name].files["capture.pcap"]))
    summary = Summary()
    if batches:
        for batch in records.batches():
            summary.add_batch(batch)
    else:
        for record in records:
            summary.add(record)
    return summary


def test_a_search_that_nobody_answers() -> None:
    """The client timed out on this name (expected.json)."""
    found = summed("udp_p4pcli_p4psrv").unanswered_searches()
    assert [(name, hosts) for name, _, hosts in found] == [("no:such:pv", ["127.0.0.1"])]


def test_errors_of_servers() -> None:
    """WIRE 8: pvAccessCPP refuses a name with ERROR "pv not found"."""
    statuses = summed("pvapy_fail").statuses
    assert statuses["no:such:pv", "CREATE_CHANNEL", "ERROR", "pv not found"] == 1


def test_frames() -> None:
    pvs = summed("p4p_ndarray_types").pvs
    assert len(pvs) == 11  # the members of the NTNDArray union
    assert {pv.frames for pv in pvs.values()} == {1}
    assert pvs["nd:ushortValue"].shape == "uint16 6×8"


@pytest.mark.parametrize("name", ["p4p_monitor", "pvapy_monitor_fast", "p4p_nts"])
def test_batches_and_records_say_the_same(name: str) -> None:
    assert summed(name).text() == summed(name, batches=False).text()


def test_latencies() -> None:
    latency = Latency()
    for milliseconds in range(1, 101):
        latency.add(milliseconds / 1000)
    assert latency.count == 100
    assert latency.longest == 0.1
    # Bins are a twentieth of a decade wide.
    assert latency.quantile(0.5) == pytest.approx(0.050, rel=0.13)
    assert latency.quantile(0.99) == pytest.approx(0.099, rel=0.13)
