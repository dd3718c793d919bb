"""Running programs: steps, indices, state in place, layouts, and what is refused."""

from __future__ import annotations

import numpy as np
from handmade import elementwise_kernel, make_program, tensor

from gradloom.compiler.program import Argument, Call, Pointer
from gradloom.compiler.types import I64
from gradloom.runtime.executable import Executable


def test_state_is_updated_in_place_over_many_steps():
    kernel = elementwise_kernel("increment", 5, lambda b, x, y: b.add(x, y), 2)
    # The state's memory is both read and written: an intermediate result in the arena, then a copy.
    copy = elementwise_kernel("copy", 5, lambda b, x: x, 1)
    state, by = Pointer("argument", 0), Pointer("argument", 1)
    schedule = [
        Call("increment", (state, by, Pointer("arena", 64)), 5),
        Call("copy", (Pointer("arena", 64), state), 5),
    ]
    arguments = [Argument("state", tensor(I64, 5), "state", written=True), Argument("by", tensor(I64, 5))]
    executable = Executable(make_program([kernel, copy], schedule, arguments, 128))
    values = np.arange(5)
    executable.run({"state": values, "by": np.full(5, 3)}, steps=7)
    np.testing.assert_array_equal(values, np.arange(5) + 21)
