"""Random numbers by counting: each element is a function of its index, a stream and a counter, and of nothing else.

The generator is Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2,
3", SC 2011), which passes every test of BigCrush: additions, rotations and exclusive-ors of 32-bit words, which vectors
of any width do alike. The key is the 64-bit counter; what is enciphered is (index of the element, stream).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.ops.base import Inline, Position, Reader
from gradloom.compiler.types import F32, I32, I64, TensorType

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
"""By how many bits each round of a block of four rotates, in even and in odd blocks."""

PARITY = 0x1BD11BDA
"""What the third word of the key differs from the exclusive-or of the other two by."""


@dataclass(frozen=True)
class RandomUniform(Inline):
    """Uniform in [0, 1), in steps of 2⁻²⁴: `%3: f32[32,128] = random_uniform %2 {shape=[32,128], stream=1}`.

    The operand is the counter, an i64 that differs from step to step. Two nodes with one counter differ by `stream`.
    """

    name: ClassVar[str] = "random_uniform"
    arity: ClassVar[int | None] = 1
    cost: ClassVar[int] = 100
    shape: tuple[int, ...]
    stream: int

    def infer(self, *operands: TensorType) -> TensorType:
        if operands[0] != TensorType(I64, ()):
            raise ShapeError(f"Expected the counter as one i64. Received: {operands[0]}")
        if any(size < 0 for size in self.shape) or prod(self.shape) > 1 << 32 or not 0 <= self.stream < 1 << 31:
            raise ShapeError(
                "Expected a shape of at most 2**32 elements and a stream in [0, 2**31). "
                f"Received: shape={list(self.shape)}, stream={self.stream}"
            )
        return TensorType(F32, self.shape)

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        counter = operands[0].read(())
        low, high = b.convert(counter, I32), b.convert(b.binary("shr", counter, 32), I32)
        key = low, high, b.binary("xor", b.binary("xor", low, high), PARITY)
        x = b.add(b.convert(b.expr(b.ravel(position, self.shape)), I32), key[0])
        y = b.add(b.const(self.stream, I32), key[1])
        for block in range(5):
            for distance in ROTATIONS[block % 2]:
                x = b.add(x, y)
                y = b.binary("xor", b.binary("or", b.binary("shl", y, distance), b.binary("shr", y, 32 - distance)), x)
            x = b.add(x, key[(block + 1) % 3])
            y = b.add(y, b.add(key[(block + 2) % 3], block + 1))
        # A float holds 24 bits, and an integer of so few is not negative.
        return b.mul(b.convert(b.binary("shr", x, 8), F32), 2.0**-24)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        counter = int(operands[0]) % (1 << 64)
        index = np.arange(prod(self.shape), dtype=np.uint64).astype(np.uint32)
        words = threefry((counter % (1 << 32), counter >> 32), (index, np.full_like(index, self.stream)))
        return ((words[0] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)).reshape(self.shape)

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (None,)


def threefry(key: tuple[int, int], words: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Encipher pairs of uint32 words with a key of two: Threefry-2x32-20 in NumPy, the oracle for compiled code."""
    schedule = np.array([*key, key[0] ^ key[1] ^ PARITY], np.uint32)
    x, y = words[0] + schedule[0], words[1] + schedule[1]
    for turn in range(20):
        distance = np.uint32(ROTATIONS[turn // 4 % 2][turn % 4])
        x = x + y
        y = (y << distance | y >> (np.uint32(32) - distance)) ^ x
        if turn % 4 == 3:
            block = turn // 4 + 1
            x, y = x + schedule[block % 3], y + schedule[(block + 1) % 3] + np.uint32(block)
    return x, y
