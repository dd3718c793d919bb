"""The machine that code is generated for: its instruction set, vector width, registers and caches, as a value."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gradloom.compiler.errors import GradloomError
from gradloom.compiler.types import DType


class TargetError(GradloomError, ValueError):
    """A target is unknown, or the machine cannot run its code."""


@dataclass(frozen=True)
class Level:
    """What an instruction set level gives: bytes in a vector register, their number, and whether it has fma."""

    name: str
    vector_bytes: int
    registers: int
    has_fma: bool
    requires: frozenset[str] = frozenset()


_V2 = frozenset({"cx16", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"})
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

LEVELS: Mapping[str, Level] = {
    level.name: level
    for level in (
        Level("x86-64-v2", 16, 16, False, _V2),
        Level("x86-64-v3", 32, 16, True, _V3),
        Level("x86-64-v4", 64, 32, True, _V4),
        Level("aarch64", 16, 32, True),
    )
}
"""The levels by name, ascending; LLVM's names of x86 features are those that a CPU must have."""


@dataclass(frozen=True)
class Target:
    """What builders and LLVM need to know of a machine; equal targets get the same code.

    `lanes` is the number of f32 in a vector, `registers` the number of vector registers; `l1` (data), `l2` and `l3`
    are bytes of cache, the last one shared by all cores. `multiplies_bf16` says that an instruction adds products of
    bf16.
    """

    level: str
    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int
    has_fma: bool
    l1: int
    l2: int
    l3: int
    multiplies_bf16: bool

    def lanes_for(self, dtype: DType) -> int:
        """How many elements of `dtype` fill a vector register; a bool is taken as the byte it is in memory."""
        return self.lanes * 4 // dtype.itemsize

    @staticmethod
    def host() -> Target:
        """The machine this runs on; `GRADLOOM_TARGET` (such as "x86-64-v3") asks for less than all it can do."""
        forced = os.environ.get("GRADLOOM_TARGET", "")
        return Target.named(forced) if forced else _host()

    @staticmethod
    def named(level: str) -> Target:
        """The plain target of an instruction set level, with this machine's caches.

        Raises `TargetError` where the level is unknown or the machine cannot run its code.
        """
        if level not in LEVELS:
            raise TargetError(f"Unknown target. Expected one of {', '.join(LEVELS)}. Received: {level}")
        if level not in host_levels():
            raise TargetError(f"Expected a target this machine can run: {', '.join(host_levels())}. Received: {level}")
        if level == "aarch64":
            return _target(LEVELS[level], "generic", "")
        # x86-64-v4's tuning prefers 256-bit vectors, a choice which belongs to the builders.
        return _target(LEVELS[level], level, "-prefer-256-bit" if level == "x86-64-v4" else "")


@cache
def host_levels() -> tuple[str, ...]:
    """The levels this machine can run, ascending."""
    if _architecture() == "aarch64":
        return ("aarch64",)
    features = _host_features()
    return tuple(
        name for name, level in LEVELS.items() if level.requires and all(features.get(f) for f in level.requires)
    )


@cache
def _host() -> Target:
    import llvmlite.binding as llvm

    levels = host_levels()
    if not levels:
        raise TargetError(f"Expected a 64-bit ARM or an x86 CPU with SSE4.2. Received: {llvm.get_host_cpu_name()}")
    features = {name: has for name, has in _host_features().items() if name != "prefer-256-bit"}
    listed = ",".join(f"{'+' if has else '-'}{name}" for name, has in sorted(features.items()))
    if levels[-1] == "x86-64-v4":
        listed += ",-prefer-256-bit"
    return _target(LEVELS[levels[-1]], llvm.get_host_cpu_name(), listed)


def _target(level: Level, cpu: str, features: str) -> Target:
    import llvmlite.binding as llvm

    l1, l2, l3 = _cache_sizes()
    lanes = level.vector_bytes // 4
    triple = llvm.get_process_triple()
    bf16 = "+avx512bf16" in features.split(",")
    return Target(level.name, triple, cpu, features, lanes, level.registers, level.has_fma, l1, l2, l3, bf16)


def _architecture() -> str:
    machine = platform.machine().lower()
    return "aarch64" if machine in ("arm64", "aarch64") else machine


@cache
def _host_features() -> Mapping[str, bool]:
    import llvmlite.binding as llvm

    return dict(llvm.get_host_cpu_features())


@cache
def _cache_sizes() -> tuple[int, int, int]:
    """Bytes of L1 data, L2 and L3 cache as Linux reports them, else what is common."""
    sizes = {1: 32 << 10, 2: 512 << 10, 3: 8 << 20}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind = (folder / "type").read_text().strip()
            level = int((folder / "level").read_text())
            text = (folder / "size").read_text().strip()
            size = int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(text[-1:], 0)
        except (OSError, ValueError):
            continue
        if kind in ("Data", "Unified") and level in sizes and size > 0:
            sizes[level] = size
    return sizes[1], sizes[2], sizes[3]
