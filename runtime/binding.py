"""Arrays bound to a program's arguments: checked once, their addresses and converted layouts kept for many runs."""

from __future__ import annotations

import ctypes
from collections.abc import Hashable, Mapping, Sequence
from operator import is_
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gradloom.compiler.errors import GradloomError
from gradloom.compiler.program import TIME_STAMPS, Argument
from gradloom.compiler.types import OPEN, TensorType
from gradloom.runtime import memory
from gradloom.runtime.memory import address

if TYPE_CHECKING:
    from gradloom.runtime.executable import Executable


class ArgumentError(GradloomError, ValueError):
    """An array does not fit the argument that it is given for."""


class RowError(GradloomError, IndexError):
    """A row was asked for that a data set does not have."""


class Place(NamedTuple):
    """An array that fits an argument, and its address: checked once, it may be bound any number of times."""

    array: np.ndarray
    address: int


class Binding:
    """A program's arguments: `run` executes steps on the arrays that it was made with.

    Written arrays are changed in place. Where the program wants another order of axes, it works on a copy, which is
    made when a run begins and written back when it ends; inside `with binding:` that happens once, on entry and exit,
    and the arrays are out of date in between (`sync` brings them up to date).
    """

    def __init__(self, executable: Executable, arrays: Mapping[str, np.ndarray | Place]) -> None:
        arguments = executable.program.arguments
        _check_names(executable.program.name, arguments, arrays)
        self.executable = executable
        self._names = tuple(argument.name for argument in arguments)
        places = [place_of(argument, arrays[argument.name]) for argument in arguments]
        _check_overlap(arguments, places)
        self._arrays = tuple(place.array for place in places)
        self.arrays = dict(zip(self._names, self._arrays, strict=True))
        """The arrays by argument, as they were handed in."""
        addresses = [place.address for place in places]
        working = list(self._arrays)
        self._layouts: list[_Layout] = []
        for number, argument in enumerate(arguments):
            if argument.is_converted:
                layout = _Layout(argument, self._arrays[number])
                self._layouts.append(layout)
                addresses[number] = address(layout.copy)
                working[number] = layout.copy
        self.written = {a.name: array for a, array in zip(arguments, working, strict=True) if a.written}
        """What the program writes, by argument: inside `with binding:` these are the arrays that it works on."""
        self._table = (ctypes.c_void_p * max(1, len(arguments)))(*addresses)
        self._table_address = ctypes.addressof(self._table)
        self._rows = _Rows.of(arguments, self._arrays)
        pairs = zip(arguments, self._arrays, strict=True)
        self._stamps = next((array for argument, array in pairs if argument.role == TIME_STAMPS), None)
        self._depth = 0
        self._version: Hashable = None

    def holds(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """Whether these are the very arrays that are bound."""
        return len(arrays) == len(self._names) and all(map(is_, map(arrays.get, self._names), self._arrays))

    def run(self, first: int = 0, steps: int = 1, version: Hashable = None) -> None:
        """Execute the steps [first, first + steps) in one native call.

        `version` names the contents of the arrays that the program does not write: while it stays the same, their
        converted copies are reused (None: never). Raises `RowError`, before anything runs, if a step's indices ask for
        rows that the data sets do not have.
        """
        if first < 0 or steps < 0:
            raise ArgumentError(f"Expected a range of steps. Received: first={first}, steps={steps}")
        with self.executable.turn:
            for rows in self._rows:
                rows.check(first, steps)
            threads = self.executable.threads
            if self._stamps is not None and len(self._stamps) < steps * threads:
                raise ArgumentError(
                    f"{TIME_STAMPS!r}: Expected at least {steps * threads} rows, for {steps} steps on {threads} "
                    f"threads. Received: {len(self._stamps)}"
                )
            if self._depth == 0:
                self._convert(version)
            try:
                self.executable.launch(self._table_address, first, steps, threads)
            finally:
                if self._depth == 0:
                    self._write_back()

    def __enter__(self) -> Binding:
        with self.executable.turn:
            if self._depth == 0:
                self._convert(None)
            self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.executable.turn:
            self._depth -= 1
            if self._depth == 0:
                self._write_back()

    def sync(self) -> None:
        """Bring the written arrays up to date inside `with binding:`."""
        with self.executable.turn:
            self._write_back()

    def _convert(self, version: Hashable) -> None:
        current = version is not None and version == self._version
        for layout in self._layouts:
            if layout.written or not current:
                layout.convert()
        self._version = version

    def _write_back(self) -> None:
        for layout in self._layouts:
            if layout.written:
                layout.write_back()


class _Layout:
    """An array, seen in the order in which the program wants it, and the contiguous copy that the program works on."""

    def __init__(self, argument: Argument, array: np.ndarray) -> None:
        self.written = argument.written
        view = array.transpose(argument.permutation) if argument.permutation else array
        if argument.panel:
            *leading, columns = view.shape
            axes = len(leading)
            panels = view.reshape(*leading, columns // argument.panel, argument.panel)
            view = panels.transpose(axes, *range(axes), axes + 1)
        self.view = view
        self.copy = memory.array(TensorType(argument.type.dtype, view.shape))

    def convert(self) -> None:
        np.copyto(self.copy, self.view)

    def write_back(self) -> None:
        np.copyto(self.view, self.copy)


class _Rows:
    """The indices of all steps, which must stay below the length of the data sets they choose rows from."""

    def __init__(self, argument: Argument, array: np.ndarray, data: str, length: int) -> None:
        self.argument, self.data, self.length = argument, data, length
        self.size = argument.type.size
        self.rows = array.reshape(-1)
        # Seen without sign a negative index is a huge one, so that one maximum finds both kinds of bad ones.
        self.unsigned = self.rows.view(f"u{array.dtype.itemsize}")

    @staticmethod
    def of(arguments: tuple[Argument, ...], arrays: tuple[np.ndarray, ...]) -> list[_Rows]:
        """What to check: nothing for a program that reads no data set by rows."""
        pairs = list(zip(arguments, arrays, strict=True))
        sets = [pair for pair in pairs if OPEN in pair[0].type.shape and pair[0].role != TIME_STAMPS]
        lengths = [(len(array), argument.name) for argument, array in sets]
        length, data = min(lengths, default=(np.iinfo(np.int64).max, ""))
        return [_Rows(argument, array, data, length) for argument, array in pairs if argument.role == "indices"]

    def check(self, first: int, steps: int) -> None:
        begin, end = first * self.size, (first + steps) * self.size
        if end > len(self.rows):
            raise ArgumentError(
                f"{self.argument.name!r}: Expected the indices of {first + steps} steps of {self.size}. "
                f"Received: {len(self.rows)} indices"
            )
        if self.data and begin < end and self.unsigned[begin:end].max() >= self.length:
            rows = self.rows[begin:end]
            at = int(np.flatnonzero((rows < 0) | (rows >= self.length))[0])
            raise RowError(
                f"{self.argument.name!r}: Expected rows from 0 to {self.length - 1}, the last one of {self.data!r}. "
                f"Received: {rows[at]} in step {first + at // self.size}"
            )


def _check_names(program: str, arguments: tuple[Argument, ...], arrays: Mapping[str, object]) -> None:
    names = {argument.name for argument in arguments}
    missing, unknown = sorted(names - set(arrays)), sorted(set(arrays) - names)
    if missing:
        raise ArgumentError(f"{program}: Expected arrays for all arguments. Missing: {', '.join(missing)}")
    if unknown:
        raise ArgumentError(
            f"{program}: Expected arrays for {', '.join(sorted(names))}. Received: {', '.join(unknown)}"
        )


def place_of(argument: Argument, array: np.ndarray | Place) -> Place:
    """The array with its address, if native code may be handed it; raises `ArgumentError` otherwise."""
    if isinstance(array, Place):
        return array
    name, dtype, host_shape = argument.name, argument.type.dtype.numpy, argument.host_shape
    if not isinstance(array, np.ndarray):
        raise ArgumentError(f"{name!r}: Expected a NumPy array. Received: {type(array).__name__}")
    if array.dtype != dtype:
        raise ArgumentError(
            f"{name!r}: Expected dtype {dtype}. Received: {array.dtype.newbyteorder('=')}{_order(array)}"
        )
    if argument.role == "indices":
        if argument.type.nbytes == 0 or array.size % argument.type.size:
            raise ArgumentError(
                f"{name!r}: Expected {argument.type.size} indices a step. Received: {array.size} in all"
            )
    elif array.shape != host_shape and not _fits(host_shape, array.shape):
        shape = ", ".join("?" if size == OPEN else str(size) for size in host_shape)
        raise ArgumentError(f"{name!r}: Expected shape ({shape}). Received: {array.shape}")
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        raise ArgumentError(f"{name!r}: Expected a C-contiguous, aligned array. Received: strides {array.strides}")
    if argument.written and not flags.writeable:
        raise ArgumentError(
            f"{name!r}: Expected a writeable array, for the program changes it. Received: a read-only one"
        )
    return Place(array, address(array))


def _order(array: np.ndarray) -> str:
    return "" if array.dtype.isnative else " of foreign byte order"


def _fits(expected: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(expected) == len(shape) and all(
        wanted in (OPEN, size) for wanted, size in zip(expected, shape, strict=True)
    )


def _check_overlap(arguments: tuple[Argument, ...], places: Sequence[Place]) -> None:
    """Refuse arrays that share memory if one of them is written: kernels rely on it."""
    spans = sorted(
        (start, array.nbytes, argument.written, argument.name)
        for argument, (array, start) in zip(arguments, places, strict=True)
        if array.nbytes
    )
    reach, owner = {False: 0, True: 0}, {False: "", True: ""}
    for start, nbytes, written, name in spans:
        for other in (True, False):
            if start < reach[other] and (written or other):
                raise ArgumentError(
                    f"{name!r}: Expected memory of its own where an array is written. Received: an array that shares "
                    f"memory with {owner[other]!r}"
                )
        if start + nbytes > reach[written]:
            reach[written], owner[written] = start + nbytes, name
