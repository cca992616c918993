"""Normative types: structures whose ids say what they mean (NTScalar, NTEnum, NTTable...), built and read.

Reading gives what a scientist wants: a number, string or numpy array that carries its time, alarm and units::

    x = normative.read(value)         # 21.4
    x.timestamp, x.severity, x.units  # 1763981234.5, 0, "C"

Building, in the manner of p4p::

    nt = normative.NTScalar("double", display=True)
    nt.type                           # the FieldDesc
    nt.wrap(21.4, timestamp=time.time(), units="C")     # a Value

Source: EPICS Normative Types (16 March 2015), and what QSRV, pvxs, p4p, pvDataCPP and areaDetector send.
"""

from .annotate import Metadata
from .meta import Control, Display, Meta, ValueAlarm
from .readers import READERS, kind, read
from .results import (
    URI,
    Aggregate,
    Array,
    Attribute,
    Bool,
    Channel,
    Channels,
    Choice,
    Continuum,
    Float,
    Histogram,
    Int,
    NameValue,
    Table,
    Text,
    Texts,
    Union,
)
from .types import (
    NTURI,
    Builder,
    NTAggregate,
    NTAttribute,
    NTContinuum,
    NTEnum,
    NTHistogram,
    NTMatrix,
    NTMultiChannel,
    NTNameValue,
    NTScalar,
    NTScalarArray,
    NTScalarMultiChannel,
    NTTable,
    NTUnion,
)

__all__ = [
    "READERS",
    "Aggregate",
    "Array",
    "Attribute",
    "Bool",
    "Builder",
    "Channel",
    "Channels",
    "Choice",
    "Continuum",
    "Control",
    "Display",
    "Float",
    "Histogram",
    "Int",
    "Meta",
    "Metadata",
    "NTAggregate",
    "NTAttribute",
    "NTContinuum",
    "NTEnum",
    "NTHistogram",
    "NTMatrix",
    "NTMultiChannel",
    "NTNameValue",
    "NTScalar",
    "NTScalarArray",
    "NTScalarMultiChannel",
    "NTTable",
    "NTURI",
    "NTUnion",
    "NameValue",
    "Table",
    "Text",
    "Texts",
    "URI",
    "Union",
    "ValueAlarm",
    "kind",
    "read",
]
