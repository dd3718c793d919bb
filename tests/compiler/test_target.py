"""Targets: what this machine can run, what the environment may ask for, and what the code for each level contains."""

import pytest
from kernel_runner import CompiledKernel

from gradloom.compiler.llvm import codegen
from gradloom.compiler.llvm.target import LEVELS, Target, TargetError, host_levels
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Kernel
from gradloom.compiler.types import BOOL, F32, F64, I32, U8, TensorType

X86_LEVELS = [level for level in host_levels() if level.startswith("x86")]


def fma_kernel(lanes: int) -> Kernel:
    b = Builder("fused")
    x = b.param(Buffer("x", TensorType(F32, (lanes,))))
    with b.vectorized(lanes):
        at = ix.lanes(ix.constant(0), lanes)
        value = b.load(x, at)
        b.store(x, at, b.fma(b.unary("floor", value), value, b.unary("sqrt", value)))
    return b.kernel(1)


def test_the_host_runs_the_highest_of_its_levels() -> None:
    host = Target.host()
    assert host.level == host_levels()[-1]
    assert host.lanes * 4 == LEVELS[host.level].vector_bytes
    assert 0 < host.l1 <= host.l2
    assert host == Target.host()


@pytest.mark.parametrize("level", host_levels())
def test_the_environment_asks_for_a_level(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLOOM_TARGET", level)
    assert Target.host() == Target.named(level)
    assert Target.host().level == level


def test_unknown_levels_and_those_beyond_the_machine_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match=r"Expected one of x86-64-v2.*Received: pentium"):
        Target.named("pentium")
    foreign = "aarch64" if X86_LEVELS else "x86-64-v2"
    monkeypatch.setenv("GRADLOOM_TARGET", foreign)
    with pytest.raises(TargetError, match=rf"this machine can run: .*Received: {foreign}"):
        Target.host()


@pytest.mark.parametrize("level", host_levels())
def test_a_vector_fills_a_register(level: str) -> None:
    target = Target.named(level)
    size = LEVELS[level].vector_bytes
    assert [target.lanes_for(dtype) for dtype in (F32, F64, I32, U8, BOOL)] == [
        size // 4, size // 8, size // 4, size, size
    ]  # fmt: skip


@pytest.mark.parametrize("level", X86_LEVELS)
def test_code_uses_the_registers_of_its_level_and_calls_no_library(level: str) -> None:
    target = Target.named(level)
    text = codegen.assembly(CompiledKernel(fma_kernel(target.lanes), target).module, target)
    widest = {"x86-64-v2": "%xmm", "x86-64-v3": "%ymm", "x86-64-v4": "%zmm"}
    for name, register in widest.items():
        assert (register in text) == (name == level), text
    assert ("vfmadd" in text) == target.has_fma
    assert "call" not in text
