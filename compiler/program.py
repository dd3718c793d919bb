"""A compiled program: object files, its arguments, its memory plan, and the binary interface to the runtime.

Object code exports three functions (written by `gradloom.compiler.llvm.driver`, called by `gradloom.runtime.threads`):

    void gradloom_launch(ptr pool, ptr arguments, ptr arena, i64 first, i64 steps, i64 threads)
    void gradloom_worker(ptr pool, i64 thread)
    void gradloom_stop(ptr pool, i64 threads)

`arguments` points to one pointer for each `Argument`, `arena` to `arena_bytes + threads * scratch_bytes` bytes. The
memory of a thread pool has the layout of `POOL_BYTES`, `SLOT_BYTES` and the offsets below.

A timed program has one more argument, of role `TIME_STAMPS`: int64 of shape (?, points, 2). In step s of a call on n
threads, thread t fills row `s * n + t`: the time before its first call or barrier, then that after each, as seconds and
nanoseconds of the system's monotonic clock. `points` is rounded up so that no two threads share a cache line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from gradloom.compiler.cached import cached_property
from gradloom.compiler.errors import GradloomError
from gradloom.compiler.types import I64, OPEN, TensorType, as_dtype

ALIGNMENT = 64
"""Bytes to which the arena and the buffers in it are aligned: a cache line, and the widest vector."""

TIME_STAMPS = "time stamps"
"""Role and name of the argument that a timed program notes the time in."""

STAMP_BYTES = 16
"""Of a time stamp: what `clock_gettime` writes on 64-bit systems, two i64."""

LAUNCH, WORKER, STOP = "gradloom_launch", "gradloom_worker", "gradloom_stop"

# A pool is one job record, then one slot for each thread. Records that different threads write lie 128 bytes apart,
# since processors fetch cache lines in pairs.
POOL_BYTES = 256
PENDING_OFFSET = 0  # i64: workers that have not finished the job
JOB_OFFSET = 128  # ptr run, ptr arguments, ptr arena, i64 first, i64 steps, i64 threads
SLOT_BYTES = 256
STATE_OFFSET = 0  # i64: what the worker does or is told (see gradloom.compiler.llvm.pool)
SEMAPHORE_OFFSET = 64  # sem_t, at most 64 bytes
EPOCH_OFFSET = 128  # i64: the barriers that the thread has reached in this job

_MAGIC = b"GLPROG"
_VERSION = 3
"""Of the serialized form and of the binary interface above: code of another version is never loaded."""


class ProgramError(GradloomError, ValueError):
    """Bytes are no serialized program of this version, or contradict themselves."""


def time_stamps(items: int) -> Argument:
    """The argument in which a program notes the time around each of so many calls and barriers of a step."""
    stamps_of_a_line = 2 * ALIGNMENT // STAMP_BYTES
    points = -(-(items + 1) // stamps_of_a_line) * stamps_of_a_line
    return Argument(TIME_STAMPS, TensorType(I64, (OPEN, points, 2)), TIME_STAMPS, written=True)


def pool_bytes(threads: int) -> int:
    """Bytes that the pool of `threads` threads takes (the caller of a program is the first of them)."""
    return POOL_BYTES + threads * SLOT_BYTES


@dataclass(frozen=True)
class Argument:
    """An array that the caller hands in: an input, or an output that no input donates its memory to.

    `type` is what the program reads; the caller's array, transposed by `permutation` if there is one, has that type.
    With a `panel`, its last axis is cut into panels of so many columns, which lie one behind the other in memory.
    What another program prepared (role "prepared") comes as it is stored, in `stored_shape`; everything else is
    converted from and to `host_shape` by whoever binds arrays.
    A leading `OPEN` size takes any length. Of "indices" the type is one step's part: the array holds the parts of all
    steps back to back, and step s reads part s. `written` says that the program changes the array.
    """

    name: str
    type: TensorType
    role: str = "argument"
    permutation: tuple[int, ...] = ()
    panel: int = 0
    written: bool = False

    @cached_property
    def is_converted(self) -> bool:
        """Whether the program works on a copy of the caller's array in another order."""
        return bool(self.permutation or self.panel) and self.role != "prepared" and self.type.size != 0

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the array that the program works on."""
        *leading, columns = self.type.shape or (1,)
        return (columns // self.panel, *leading, self.panel) if self.panel else self.type.shape

    @cached_property
    def host_shape(self) -> tuple[int, ...]:
        """The shape of the caller's array."""
        if self.role == "prepared":
            return self.stored_shape
        shape = list(self.type.shape)
        for axis, source in enumerate(self.permutation):
            shape[source] = self.type.shape[axis]
        return tuple(shape)

    def __str__(self) -> str:
        order = f" permutation={list(self.permutation)}" if self.permutation else ""
        order += f" panel={self.panel}" if self.panel else ""
        return f"{self.name}: {self.type} {self.role}{order}{' written' if self.written else ''}"


@dataclass(frozen=True)
class Slot:
    """A buffer's place in the arena, and the first and last call of the schedule that need it."""

    name: str
    offset: int
    nbytes: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.name}: {self.nbytes} bytes at {self.offset}, calls {self.first}..{self.last}"


@dataclass(frozen=True)
class Pointer:
    """Where the memory of a kernel's parameter is.

    `space` and `at`: "argument" and the argument's number; "arena" and the byte offset; "constant" and the bytes.
    """

    space: str
    at: int | bytes

    def __str__(self) -> str:
        if isinstance(self.at, bytes):
            return f"constant of {len(self.at)} bytes"
        return f"{self.space}{'+' if self.space == 'arena' else ' '}{self.at}"


@dataclass(frozen=True)
class Call:
    """Run the blocks of a kernel: of n threads, thread t runs the blocks [blocks·t/n, blocks·(t+1)/n)."""

    kernel: str
    arguments: tuple[Pointer, ...]
    blocks: int

    def __str__(self) -> str:
        return f"{self.kernel}({', '.join(map(str, self.arguments))}) blocks={self.blocks}"


@dataclass(frozen=True)
class Barrier:
    """No thread goes on before all threads are here."""

    def __str__(self) -> str:
        return "barrier"


Step = Call | Barrier


@dataclass(frozen=True)
class Program:
    """Object files, which are linked with one another, and all that is needed to run them.

    `max_threads` bounds how many threads pay (1: a serial program); `schedule` is the text of one step's calls and
    barriers; `notes` are remarks of the compiler (copies that donation cost, decisions of fusion).
    """

    name: str
    code: tuple[bytes, ...]
    arguments: tuple[Argument, ...]
    arena_bytes: int
    scratch_bytes: int = 0
    max_threads: int = 1
    schedule: tuple[str, ...] = ()
    buffers: tuple[Slot, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _validate(self)

    @property
    def parallel(self) -> bool:
        return self.max_threads > 1

    def memory_bytes(self, threads: int) -> int:
        """Bytes of the arena for a run on `threads` threads."""
        return self.arena_bytes + threads * self.scratch_bytes

    @property
    def needed_bytes(self) -> int:
        """Bytes that a run on one thread needs, with the arguments, as far as their sizes are known."""
        return self.memory_bytes(1) + sum(max(0, argument.type.nbytes) for argument in self.arguments)

    def to_bytes(self) -> bytes:
        """Serialize: magic, version, length of the header, header as JSON, object files."""
        header = json.dumps(
            {
                "name": self.name,
                "code": [len(file) for file in self.code],
                "arguments": [
                    [a.name, a.type.dtype.name, list(a.type.shape), a.role, list(a.permutation), a.panel, a.written]
                    for a in self.arguments
                ],
                "arena_bytes": self.arena_bytes,
                "scratch_bytes": self.scratch_bytes,
                "max_threads": self.max_threads,
                "schedule": list(self.schedule),
                "buffers": [[s.name, s.offset, s.nbytes, s.first, s.last] for s in self.buffers],
                "notes": list(self.notes),
            },
            separators=(",", ":"),
        ).encode()
        return (
            _MAGIC + _VERSION.to_bytes(2, "little") + len(header).to_bytes(8, "little") + header + b"".join(self.code)
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Program:
        """Read what `to_bytes` wrote; raises `ProgramError` for anything else."""
        start = len(_MAGIC) + 10
        if len(data) < start or not data.startswith(_MAGIC):
            raise ProgramError(f"Expected a serialized program. Received: {len(data)} bytes starting {data[:8]!r}")
        version = int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 2], "little")
        if version != _VERSION:
            raise ProgramError(f"Expected a serialized program of version {_VERSION}. Received: version {version}")
        length = int.from_bytes(data[len(_MAGIC) + 2 : start], "little")
        if length > len(data) - start:
            raise ProgramError(f"Expected a header of {length} bytes. Received: {len(data) - start} bytes")
        try:
            header = json.loads(data[start : start + length])
            return cls(
                name=header["name"],
                code=_cut(data[start + length :], header["code"]),
                arguments=tuple(_read_argument(*fields) for fields in header["arguments"]),
                arena_bytes=header["arena_bytes"],
                scratch_bytes=header["scratch_bytes"],
                max_threads=header["max_threads"],
                schedule=tuple(header["schedule"]),
                buffers=tuple(Slot(*fields) for fields in header["buffers"]),
                notes=tuple(header["notes"]),
            )
        except ProgramError:
            raise
        # The header may hold any JSON: whatever fails while it is read means that it isn't one of ours.
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ProgramError(
                f"Expected the header of a program. Received one that does not read: {error!r}"
            ) from None


def _cut(data: bytes, sizes: list[int]) -> tuple[bytes, ...]:
    """Data divided into pieces of these sizes."""
    _check(bool(sizes) and all(_is_int(size) and size >= 0 for size in sizes), "sizes of object files", sizes)
    _check(sum(sizes) == len(data), f"object files of {sum(sizes)} bytes", f"{len(data)} bytes")
    ends = list(accumulate(sizes))
    return tuple(data[end - size : end] for end, size in zip(ends, sizes, strict=True))


def _read_argument(
    name: str, dtype: str, shape: list[int], role: str, permutation: list[int], panel: int, written: bool
) -> Argument:
    if not isinstance(dtype, str):
        raise ProgramError(f"Expected the name of a dtype. Received: {dtype!r}")
    return Argument(name, TensorType(as_dtype(dtype), tuple(shape)), role, tuple(permutation), panel, written)


def _validate(program: Program) -> None:
    """Raise `ProgramError` where a description could not be the one of compiled code."""
    fields: Mapping[str, Any] = vars(program)
    for name, low in {"arena_bytes": 0, "scratch_bytes": 0, "max_threads": 1}.items():
        _check(_is_int(fields[name]) and fields[name] >= low, f"an integer of at least {low} as {name}", fields[name])
    _check(program.scratch_bytes % ALIGNMENT == 0, f"scratch_bytes in units of {ALIGNMENT}", program.scratch_bytes)
    _check(program.arena_bytes % ALIGNMENT == 0, f"arena_bytes in units of {ALIGNMENT}", program.arena_bytes)
    code = program.code
    whole = isinstance(code, tuple) and bool(code) and all(isinstance(file, bytes) for file in code)
    _check(whole, "object files as bytes", type(code))
    for text in (program.name, *program.schedule, *program.notes):
        _check(isinstance(text, str), "text", text)
    for argument in program.arguments:
        shape, permutation = argument.type.shape, argument.permutation
        _check(
            isinstance(argument.name, str) and isinstance(argument.role, str), "an argument's name and role", argument
        )
        _check(isinstance(argument.written, bool), "a truth value as written", argument)
        _check(all(_is_int(size) for size in shape), "sizes as integers", argument)
        _check(all(size >= 0 for size in shape[1:]) and min(shape[:1], default=0) >= OPEN, "a shape", argument)
        _check(not permutation or sorted(permutation) == list(range(len(shape))), "a permutation of the axes", argument)
        _check(not permutation or OPEN not in shape, "a known shape where axes are permuted", argument)
        panel = argument.panel
        _check(_is_int(panel) and panel >= 0, "columns of a panel", argument)
        _check(not panel or (OPEN not in shape and len(shape) > 1 and shape[-1] % panel == 0), "whole panels", argument)
    names = [argument.name for argument in program.arguments]
    _check(len(set(names)) == len(names), "arguments of different names", names)
    for slot in program.buffers:
        numbers = (slot.offset, slot.nbytes, slot.first, slot.last)
        _check(isinstance(slot.name, str) and all(map(_is_int, numbers)) and min(numbers) >= 0, "a buffer", slot)
        _check(slot.offset + slot.nbytes <= program.arena_bytes, f"a buffer within {program.arena_bytes} bytes", slot)


def _check(holds: bool, expected: str, received: object) -> None:
    if not holds:
        raise ProgramError(f"Expected {expected}. Received: {received}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
