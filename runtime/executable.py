"""Runs compiled programs: loaded code, the arena it works in, and the arrays it is called with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np

from gradloom.compiler.program import ALIGNMENT, Program
from gradloom.runtime.binding import Binding, Place, place_of
from gradloom.runtime.loading import Library
from gradloom.runtime.locks import new_lock
from gradloom.runtime.memory import address, allocate
from gradloom.runtime.threads import Launcher, get_num_threads


class Executable:
    """A program ready to run: `run` for single calls, `bind` for many calls with the same arrays.

    It owns one arena, so its runs take turns when several Python threads call it. Its native calls are never broken
    off: Ctrl-C raises `KeyboardInterrupt` after the last step of the call.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.turn = new_lock(self, "turn")
        self._launch = Launcher(Library(program.code))
        self._arena = np.empty(0, np.uint8)
        self._arena_threads = 0
        self._arena_address = 0
        self._last: Binding | None = None

    def places(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Place]:
        """Check the arrays of some arguments once for many bindings; raises `ArgumentError` as `bind` does."""
        known = {argument.name: argument for argument in self.program.arguments}
        return {name: place_of(known[name], array) for name, array in arrays.items() if name in known}

    def bind(self, arrays: Mapping[str, np.ndarray | Place]) -> Binding:
        """Check one array for each argument, by name, and keep them for many runs.

        Arrays are C-contiguous, of the argument's dtype and shape; written ones are writeable and share no memory with
        others. Raises `ArgumentError` naming the argument, what was expected and what came.
        """
        return Binding(self, arrays)

    def run(self, arrays: Mapping[str, np.ndarray], first: int = 0, steps: int = 1, version: Hashable = None) -> None:
        """Execute the steps [first, first + steps) on `arrays`, as `bind` and `Binding.run` do.

        The binding is kept for the next call: with the very same array objects it costs a few microseconds.
        """
        binding = self._last
        if binding is None or not binding.holds(arrays):
            binding = self._last = self.bind(arrays)
        binding.run(first, steps, version)

    @property
    def threads(self) -> int:
        """How many threads the next run asks for."""
        return min(get_num_threads(), self.program.max_threads)

    def launch(self, table: int, first: int, steps: int, threads: int) -> None:
        """Call native code with the arguments' addresses in `table`; the caller, a binding, holds `turn`."""
        if threads > self._arena_threads:
            # The old arena goes first: two of them may be more than there is memory for.
            self._arena, self._arena_threads = np.empty(0, np.uint8), 0
            self._arena = allocate(self.program.memory_bytes(threads), ALIGNMENT)
            self._arena_threads, self._arena_address = threads, address(self._arena)
        self._launch(table, self._arena_address, first, steps, threads)
