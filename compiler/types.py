"""Types of tensors: an element type and a static shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from gradloom.compiler.cached import cached_property
from gradloom.compiler.errors import DTypeError, ShapeError

OPEN = -1
"""The leading size of a data set whose length a program does not depend on; printed as `?`.

Only a row gather reads a tensor with an open leading size; every other op refuses it.
"""


MOST_BYTES = 2**63 - 1
"""What a tensor may take at most: code computes offsets in 64 bits."""


@dataclass(frozen=True, eq=False)
class DType:
    """An element type: its short name, NumPy's name for it, its kind and its width in bits.

    There is one object of each, and it is equal to itself only: types are compared and hashed all the time.
    """

    name: str
    numpy_name: str
    kind: str  # "float", "int", "unsigned" or "bool"
    bits: int

    @cached_property
    def numpy(self) -> np.dtype:
        if self == BF16:
            # NumPy has no such type of its own; the package that adds it is loaded when one is first asked for.
            import ml_dtypes

            storage: np.dtype = np.dtype(ml_dtypes.bfloat16)
            return storage
        return np.dtype(self.numpy_name)

    @property
    def arithmetic(self) -> DType:
        """The dtype in which values of this one are computed with: bf16 is for storage, and computed with as f32."""
        return F32 if self == BF16 else self

    @property
    def itemsize(self) -> int:
        """Bytes an element takes in memory; a bool takes one."""
        return max(self.bits, 8) // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "unsigned")

    def __reduce__(self) -> tuple[Callable[[str], DType], tuple[str]]:
        """A copy, or what was pickled, is the object itself."""
        return _named, (self.name,)

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


BOOL = DType("bool", "bool", "bool", 1)
U8 = DType("u8", "uint8", "unsigned", 8)
I32 = DType("i32", "int32", "int", 32)
I64 = DType("i64", "int64", "int", 64)
BF16 = DType("bf16", "bfloat16", "float", 16)
F32 = DType("f32", "float32", "float", 32)
F64 = DType("f64", "float64", "float", 64)

DTYPES: tuple[DType, ...] = (BOOL, U8, I32, I64, BF16, F32, F64)
"""Every element type, in the order of promotion: of two, the later one is the result's."""

_BY_NAME = {name: dtype for dtype in DTYPES for name in (dtype.name, dtype.numpy_name)}


def as_dtype(dtype: DType | str | type | np.dtype) -> DType:
    """Return the element type named by `dtype`: "f32", "float32", `np.float32`, or a `DType`."""
    if isinstance(dtype, DType):
        return dtype
    return _named(dtype) if isinstance(dtype, str) else _of_numpy(np.dtype(dtype))


@cache
def _of_numpy(dtype: np.dtype) -> DType:
    """The element type of NumPy's; kept, for NumPy takes microseconds to say a name."""
    return _named(dtype.name)


def _named(name: str) -> DType:
    if name not in _BY_NAME:
        known = ", ".join(known.numpy_name for known in DTYPES)
        raise DTypeError(f"Unknown dtype. Expected one of {known}. Received: {name}")
    return _BY_NAME[name]


def promote(*dtypes: DType) -> DType:
    """Return the dtype that operands of these dtypes are converted to (Keras's rule: i64 with f32 is f32)."""
    return max(dtypes, key=DTYPES.index)


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a tensor; prints as `f32[32,784]`."""

    dtype: DType
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """Row-major strides, in elements."""
        strides = [1] * self.rank
        for axis in range(self.rank - 2, -1, -1):
            strides[axis] = strides[axis + 1] * self.shape[axis + 1]
        return tuple(strides)

    def checked(self) -> TensorType:
        """The type itself; raises `ShapeError` where its size cannot be computed with."""
        # An axis of size 0 does not make the strides of the others any smaller.
        nbytes = math.prod(max(size, 1) for size in self.shape) * self.dtype.itemsize
        if nbytes > MOST_BYTES:
            raise ShapeError(f"Expected a tensor of less than 2**63 bytes. Received: {self}, of {nbytes} bytes")
        return self

    def __str__(self) -> str:
        sizes = ",".join("?" if size == OPEN else str(size) for size in self.shape)
        return f"{self.dtype}[{sizes}]"

    __repr__ = __str__
