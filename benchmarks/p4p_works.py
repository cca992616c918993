"""What p4p can be asked without a network: to make an array of a Value that was received."""

from __future__ import annotations

import numpy as np
from p4p.nt import NTNDArray

from . import messages
from .subjects import Work


def value_to_array(n: int) -> Work:
    nt = NTNDArray()
    image = np.frombuffer(messages.ramp(n), "<u2").reshape(n, n)
    value = nt.wrap(image)

    def run() -> None:
        for _ in range(100):
            nt.unwrap(value)

    assert np.array_equal(nt.unwrap(value), image)
    return Work(run, 100)
