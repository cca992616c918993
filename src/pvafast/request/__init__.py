"""pvRequest: which fields and options a client asks for, as text and as the structure on the wire; selecting fields.

The text is what pvxs and pvDataCPP's CreateRequest read, each of them a part of it::

    field(value,alarm.severity)record[queueSize=10,pipeline=true]
    field(value[array=0:10],alarm{severity,status})        options of a field, several members of one
    field[algorithm=x](value)                              options of the whole (in neither model's text, but legal)
    putField(setpoint)getField(readback,alarm)             PUT_GET
    value,alarm                                            short for field(value,alarm)

White space and commas part the fields. A name with other characters than letters, digits, ``_`` and ``-``, or a value with
commas, brackets, quotes or white space, is put in quotes, with the escapes ``\\" \\\\ \\n \\t \\r \\xHH \\uHHHH \\UHHHHHHHH``.
Where the two models disagree: fields and options named twice are merged, so that ``a,a.b`` is ``a.b``, and the last value
counts, as in pvxs; a field without members of its own is selected as a whole, its options notwithstanding, as in pvDataCPP.
pvDataCPP takes quotes around a value for a part of it.
"""

from .request import Request, format, parse  # noqa: A004
from .selection import Selection, select

__all__ = ["Request", "Selection", "format", "parse", "select"]
