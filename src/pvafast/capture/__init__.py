"""Recorded network traffic: pcap and pcapng files -> packets -> TCP streams and UDP datagrams."""

from .events import Clock, Closed, Connection, Damage, Data, Datagram, Event, Gap, Opened
from .files import Capture
from .traffic import Statistics, Traffic

__all__ = [
    "Capture",
    "Clock",
    "Closed",
    "Connection",
    "Damage",
    "Data",
    "Datagram",
    "Event",
    "Gap",
    "Opened",
    "Statistics",
    "Traffic",
]
