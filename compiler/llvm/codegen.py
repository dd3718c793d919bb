"""Turns LLVM IR into object code: which optimizations run, and for which machine."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from gradloom.compiler.errors import VerificationError
from gradloom.compiler.forks import wait_for_llvm_at_forks

if TYPE_CHECKING:
    from gradloom.compiler.llvm.target import Target

compilations = 0
"""How many modules were compiled to machine code in this process; a warm cache leaves it unchanged."""


def compile_module(module: Any, target: Target, level: int = 2) -> bytes:
    """Object code of an LLVM module (an `llvmlite.ir.Module` or its text), optimized at `level` (0 to 3).

    The code is position independent, of the small code model: its constants lie beside it, as a linker lays them out.
    """
    global compilations
    compilations += 1
    code: bytes = _machine(target, level).emit_object(_optimized(module, target, level))
    return code


def assembly(module: Any, target: Target, level: int = 2) -> str:
    """The assembly text of what `compile_module` returns."""
    global compilations
    compilations += 1
    text: str = _machine(target, level).emit_assembly(_optimized(module, target, level))
    return text


def texts(module: Any, target: Target, level: int = 2) -> tuple[str, str]:
    """What `llvm_text` and `assembly` return, in little more than the time of one."""
    global compilations
    compilations += 1
    optimized = _optimized(module, target, level)
    # Generating code prepares the module for it, so its text is taken before.
    return str(optimized), _machine(target, level).emit_assembly(optimized)


def llvm_text(module: Any, target: Target, level: int = 2) -> str:
    """The text of an LLVM module after optimization; level 0 shows it as it was emitted, verified."""
    return str(_optimized(module, target, level))


def _optimized(module: Any, target: Target, level: int) -> Any:
    """The module parsed, verified and optimized in memory."""
    import llvmlite.binding as llvm

    machine = _machine(target, level)
    text = str(module)
    try:
        parsed = llvm.parse_assembly(text)
        parsed.verify()
    except RuntimeError as error:
        raise VerificationError(f"LLVM refuses the emitted module: {error}\n{text}") from None
    parsed.triple = target.triple
    parsed.data_layout = str(machine.target_data)
    if level:
        # The builders have vectorized and unrolled already; LLVM must not decide anew.
        # Passes of level 2 take a fifth longer and gain nothing measurable; the code generator's level does.
        options = llvm.create_pipeline_tuning_options(speed_level=1)
        options.loop_vectorization = options.slp_vectorization = False
        options.loop_interleaving = options.loop_unrolling = False
        builder = llvm.create_pass_builder(machine, options)
        # Functions one by one: the passes over whole modules cost half as much again and find nothing here.
        passes = builder.getFunctionPassManager()
        for function in parsed.functions:
            if not function.is_declaration:
                passes.run(function, builder)
    return parsed


@cache
def _machine(target: Target, level: int) -> Any:
    """LLVM's code generator for `target`."""
    import llvmlite.binding as llvm

    wait_for_llvm_at_forks()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=level, reloc="pic", codemodel="small"
    )
