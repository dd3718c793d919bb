"""Translates loop IR to LLVM IR, one statement after the other; every decision was made by the kernel builders.

Registers hold a bool as i1, memory as a byte; a bf16 is an i16, its bits, which are converted and not computed with. No
fast-math flag is set but `nsz` on min and max, whose sign of zero is not specified. A loop is emitted with its test at
the end, behind a guard where it might not run at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir as ll
import numpy as np

from gradloom.compiler.errors import VerificationError
from gradloom.compiler.llvm.target import Target
from gradloom.compiler.loops.grammar import Block, Buffer, Expr, For, If, Kernel, Store, VType
from gradloom.compiler.types import BF16, F32
from gradloom.compiler.types import I32 as WORD

POINTER = ll.PointerType()
VOID = ll.VoidType()
I1, I8, I16, I32, I64 = (ll.IntType(bits) for bits in (1, 8, 16, 32, 64))


class _BFloat(ll.Type):  # type: ignore[misc]
    """LLVM's type of bf16, which its instructions want and llvmlite does not have."""

    def _to_string(self) -> str:
        return "bfloat"


BFLOAT = _BFloat()

QUIET_NAN = 0x7FC0
"""The bits of bf16's positive NaN."""

_ON_BITS = frozenset({"convert", "bitcast", "broadcast", "extract", "select"})
"""The opcodes that bf16 may be an operand of."""

LONGEST_NAME = 64
"""Characters of a buffer's name that are kept: LLVM itself cuts long names, and then finds two of one name."""

VECTOR_ALIGNMENT = 64
"""Bytes to which scratch and stack buffers are aligned: the widest vector register."""

_REGISTER = {"bool": I1, "u8": I8, "i32": I32, "i64": I64}
_REGISTER |= {"bf16": I16, "f32": ll.FloatType(), "f64": ll.DoubleType()}


def new_module(name: str, target: Target) -> ll.Module:
    """An empty LLVM module for `target`."""
    module = ll.Module(name)
    module.triple = target.triple
    return module


def declare(module: ll.Module, name: str, result: ll.Type, parameters: Sequence[ll.Type]) -> ll.Function:
    """The function `name` of the module, declared on first use: an intrinsic or an external symbol."""
    known = module.globals.get(name)
    if known is None:
        return ll.Function(module, ll.FunctionType(result, parameters), name)
    if len(known.args) != len(parameters):
        raise VerificationError(f"{name}: Expected {len(known.args)} parameters. Received: {len(parameters)}")
    return known


def emit_kernel(module: ll.Module, kernel: Kernel, target: Target) -> ll.Function:
    """Add `void kernel(ptr buffer…, ptr scratch, i64 begin, i64 end)` to the module.

    Its buffers must not overlap. `scratch` is `grammar.nbytes` of the kernel's scratch buffers, aligned to 64 bytes.
    """
    parameters = [POINTER] * (len(kernel.buffers) + 1) + [I64, I64]
    function = declare(module, kernel.name, VOID, parameters)
    if function.blocks:
        raise VerificationError(f"Expected kernels of different names. Received: two named {kernel.name}")
    # Kernels stay functions of their own: inlining them costs compile time and gains nothing.
    for attribute in ("noinline", "nounwind"):
        function.attributes.add(attribute)
    _Emitter(module, function, kernel, target).run()
    return function


class _Emitter:
    """Emits one kernel: where its next instruction goes, and what each expression and buffer became."""

    def __init__(self, module: ll.Module, function: ll.Function, kernel: Kernel, target: Target) -> None:
        self.module = module
        self.function = function
        self.kernel = kernel
        self.target = target
        self.entry = ll.IRBuilder(function.append_basic_block("entry"))
        self.b = ll.IRBuilder(function.append_basic_block("body"))
        self.values: dict[Expr, ll.Value] = {}
        self.pointers: dict[Buffer, ll.Value] = {}

    def run(self) -> None:
        *pointers, scratch, begin, end = self.function.args
        for buffer, pointer in zip(self.kernel.buffers, pointers, strict=True):
            pointer.name = buffer.name[:LONGEST_NAME]
            self.pointers[buffer] = pointer
        scratch.name, begin.name, end.name = "scratch", "begin", "end"
        for pointer in (*pointers, scratch):
            pointer.attributes.update(("noalias", "captures(none)"))
        self.values |= {self.kernel.begin: begin, self.kernel.end: end}
        self._allocate(scratch)
        self.block(self.kernel.body)
        self.b.ret_void()
        self.entry.branch(self.function.blocks[1])

    def _allocate(self, scratch: ll.Value) -> None:
        offset = 0
        for buffer in self.kernel.scratch:
            if buffer.space == "stack":
                # A vector may be read at any element, so a whole one fits behind the last.
                count = buffer.type.size + VECTOR_ALIGNMENT // buffer.type.dtype.itemsize
                memory = self.entry.alloca(ll.ArrayType(storage(VType(buffer.type.dtype)), count), name=buffer.name)
                memory.align, memory.type = VECTOR_ALIGNMENT, POINTER
                self.pointers[buffer] = memory
            else:
                self.pointers[buffer] = self.entry.gep(scratch, [I64(offset)], name=buffer.name, source_etype=I8)
                offset += -(-buffer.type.nbytes // 64) * 64

    # Statements.

    def block(self, block: Block) -> None:
        for statement in block.statements:
            if isinstance(statement, Expr):
                self.values[statement] = self.expr(statement)
            elif isinstance(statement, Store):
                self.store(statement)
            elif isinstance(statement, For):
                self.loop(statement)
            else:
                self.condition(statement)

    def value(self, expr: Expr) -> ll.Value:
        """What an expression became; literals need no statement of their own."""
        if expr not in self.values:
            if expr.op != "const":
                raise VerificationError(f"{self.kernel.name}: {expr.op} of {expr.type} is read where it is not defined")
            self.values[expr] = literal(expr.type, expr.attr)
        return self.values[expr]

    def condition(self, statement: If) -> None:
        with self.b.if_then(self.value(statement.condition)):
            self.block(statement.body)

    def loop(self, loop: For) -> None:
        start, stop = self.value(loop.start), self.value(loop.stop)
        initial = [self.value(value) for value in loop.initial]
        name = str(loop.var.attr)
        before = self.b.block
        body, after = self.b.append_basic_block(name), self.b.append_basic_block(f"{name}.end")
        runs = loop.start.op == loop.stop.op == "const" and loop.start.attr < loop.stop.attr
        if runs:
            self.b.branch(body)
        else:
            self.b.cbranch(self.b.icmp_signed("<", start, stop), body, after)

        self.b.position_at_end(body)
        variable = self.b.phi(I64, name)
        variable.add_incoming(start, before)
        self.values[loop.var] = variable
        carried = [self.b.phi(value.type) for value in initial]
        for expr, phi, value in zip(loop.carried, carried, initial, strict=True):
            phi.add_incoming(value, before)
            self.values[expr] = phi
        self.block(loop.body)
        latch = self.b.block
        successor = self.b.add(variable, I64(loop.step), flags=("nsw",))
        variable.add_incoming(successor, latch)
        following = [self.value(value) for value in loop.next]
        for phi, value in zip(carried, following, strict=True):
            phi.add_incoming(value, latch)
        self.b.cbranch(self.b.icmp_signed("<", successor, stop), body, after)

        self.b.position_at_end(after)
        for expr, value, last in zip(loop.results, initial, following, strict=True):
            result = self.b.phi(last.type)
            result.add_incoming(last, latch)
            if not runs:
                result.add_incoming(value, before)
            self.values[expr] = result

    # Expressions.

    def expr(self, expr: Expr) -> ll.Value:
        if expr.op in ("const", "var"):
            return self.value(expr)
        args = [self.value(arg) for arg in expr.args]
        kind = expr.args[0].dtype.kind if expr.args else expr.dtype.kind
        if expr.op not in _ON_BITS and any(arg.dtype == BF16 for arg in expr.args):
            raise VerificationError(f"{self.kernel.name}: Expected {expr.op!r} of converted values. Received: bf16")
        if instruction := _INSTRUCTIONS.get((expr.op, kind)):
            return getattr(self.b, instruction)(*args)
        if intrinsic := _INTRINSICS.get((expr.op, kind)):
            return self.intrinsic(intrinsic, args)
        if predicate := _PREDICATES.get(expr.op):
            return self.compare(predicate, kind, *args)
        if emit := _EMITTERS.get(expr.op):
            return emit(self, expr, *args)
        raise VerificationError(f"{self.kernel.name}: LLVM emission knows no {expr.op!r} of {expr.type}")

    def intrinsic(self, name: str, args: Sequence[ll.Value], result: ll.Type | None = None) -> ll.Value:
        """Call an intrinsic overloaded on its operands' type (and its result's, where that differs)."""
        type = args[0].type
        overloads = [type] if result is None else [result, type]
        full, parameters = ".".join(["llvm", name, *map(_mangled, overloads)]), [arg.type for arg in args]
        # llvm.minimum and maximum propagate NaN; only the order of -0 and +0 is set free, which x86 would pay for.
        flags = ("nsz",) if name in ("minimum", "maximum") else ()
        return self.b.call(declare(self.module, full, result or type, parameters), args, fastmath=flags)

    def compare(self, predicate: str, kind: str, x: ll.Value, y: ll.Value) -> ll.Value:
        if kind == "float":
            return (self.b.fcmp_unordered if predicate == "!=" else self.b.fcmp_ordered)(predicate, x, y)
        return (self.b.icmp_signed if kind == "int" else self.b.icmp_unsigned)(predicate, x, y)

    def fma(self, expr: Expr, x: ll.Value, y: ll.Value, z: ll.Value) -> ll.Value:
        if expr.dtype.is_float and self.target.has_fma:
            return self.intrinsic("fma", (x, y, z))
        if expr.dtype.is_float:
            return self.b.fadd(self.b.fmul(x, y), z)
        return self.b.add(self.b.mul(x, y), z)

    def dot2(self, expr: Expr, x: ll.Value, y: ll.Value, z: ll.Value) -> ll.Value:
        """One instruction where the target has it for so many lanes, else a multiply-add for each half of the words."""
        b, type = self.b, register(expr.type)
        if self.target.multiplies_bf16 and expr.lanes in (4, 8, 16):
            pairs = ll.VectorType(BFLOAT, 2 * expr.lanes)
            name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * expr.lanes}"
            function = declare(self.module, name, type, [type, pairs, pairs])
            return b.call(function, [z, b.bitcast(x, pairs), b.bitcast(y, pairs)])
        word = expr.args[0].type
        for half, amount in ((b.shl, 16), (b.and_, -(1 << 16))):
            left, right = (b.bitcast(half(words, literal(word, amount)), type) for words in (x, y))
            z = self.fma(expr, left, right, z)
        return z

    def divide(self, expr: Expr, x: ll.Value, y: ll.Value) -> ll.Value:
        """Integer quotient or remainder, defined for every divisor: 0 for zero, wrapped for the least number by -1."""
        if expr.dtype.is_float:
            raise VerificationError(f"{self.kernel.name}: LLVM emission knows no {expr.op!r} of {expr.type}")
        signed = expr.dtype.kind == "int"
        prefix, suffix = "s" if signed else "u", "div" if expr.op == "div" else "rem"
        divide = getattr(self.b, prefix + suffix)
        divisor = expr.args[1]
        if divisor.op == "const" and divisor.attr not in (0, -1):
            return divide(x, y)
        zero, one = literal(expr.type, 0), literal(expr.type, 1)
        by_zero = self.b.icmp_unsigned("==", y, zero)
        if not signed:
            result = divide(x, self.b.select(by_zero, one, y))
            return self.b.select(by_zero, zero, result)
        negates = self.b.icmp_unsigned("==", y, literal(expr.type, -1))
        result = divide(x, self.b.select(self.b.or_(by_zero, negates), one, y))
        if suffix == "rem":
            return result
        return self.b.select(by_zero, zero, self.b.select(negates, self.b.sub(zero, x), result))

    def shift(self, expr: Expr, x: ll.Value, y: ll.Value) -> ll.Value:
        """A shift by its amount modulo the width: LLVM leaves larger ones undefined."""
        amount = y
        if expr.args[1].op != "const":
            amount = self.b.and_(y, literal(expr.args[1].type, expr.dtype.bits - 1))
        return self.b.shl(x, amount) if expr.op == "shl" else self.b.lshr(x, amount)

    def convert(self, expr: Expr, x: ll.Value) -> ll.Value:
        return self.converted(x, expr.args[0].type, expr.type)

    def converted(self, x: ll.Value, given: VType, wanted: VType) -> ll.Value:
        source, dtype, type = given.dtype, wanted.dtype, register(wanted)
        if source == dtype:
            return x
        if BF16 in (source, dtype):
            return self.by_bits(x, given, wanted)
        if dtype.kind == "bool":
            return self.compare("!=", source.kind, x, literal(given, 0))
        if source.is_float and dtype.is_float:
            return (self.b.fpext if dtype.bits > source.bits else self.b.fptrunc)(x, type)
        if source.is_float:
            return self.intrinsic("fptosi.sat" if dtype.kind == "int" else "fptoui.sat", (x,), type)
        if dtype.is_float:
            return (self.b.sitofp if source.kind == "int" else self.b.uitofp)(x, type)
        if dtype.bits < source.bits:
            return self.b.trunc(x, type)
        return (self.b.sext if source.kind == "int" else self.b.zext)(x, type)

    def by_bits(self, x: ll.Value, given: VType, wanted: VType) -> ll.Value:
        """From or to bf16, the upper half of an f32: rounded to nearest, ties to even, and NaNs to quiet ones.

        The instruction that AVX-512 has for it takes denormals for zeros.
        """
        single, word = given.with_dtype(F32), given.with_dtype(WORD)
        b, half = self.b, literal(word, 16)
        if given.dtype == BF16:
            wide = b.bitcast(b.shl(b.zext(x, register(word)), half), register(single))
            return self.converted(wide, single, wanted)
        x = self.converted(x, given, single)
        bits = b.bitcast(x, register(word))
        upper = b.lshr(bits, half)
        # Half of the last place that stays, less one, and what makes the tie even.
        upwards = b.add(b.and_(upper, literal(word, 1)), literal(word, 0x7FFF))
        rounded = b.lshr(b.add(bits, upwards), half)
        nan = b.or_(b.and_(upper, literal(word, 0x8000)), literal(word, QUIET_NAN))
        return b.trunc(b.select(b.fcmp_unordered("uno", x, x), nan, rounded), register(wanted))

    def broadcast(self, expr: Expr, x: ll.Value) -> ll.Value:
        type = register(expr.type)
        first = self.b.insert_element(ll.Constant(type, ll.Undefined), x, I32(0))
        mask = ll.Constant(ll.VectorType(I32, expr.lanes), None)
        return self.b.shuffle_vector(first, ll.Constant(type, ll.Undefined), mask)

    def reduce(self, expr: Expr, x: ll.Value) -> ll.Value:
        """Combine the upper half of the lanes with the lower one until one is left: always the same tree."""
        kind, count = expr.dtype.kind, x.type.count
        while count > 1:
            if count % 2:
                raise VerificationError(
                    f"{self.kernel.name}: expected a power of two lanes. Received: {expr.args[0].type}"
                )
            count //= 2
            unused = ll.Constant(x.type, ll.Undefined)
            low, high = (self.b.shuffle_vector(x, unused, _lanes(first, count)) for first in (0, count))
            if instruction := _INSTRUCTIONS.get((expr.attr, kind)):
                x = getattr(self.b, instruction)(low, high)
            else:
                x = self.intrinsic(_INTRINSICS[expr.attr, kind], (low, high))
        return self.b.extract_element(x, I32(0))

    # Memory.

    def address(self, buffer: Buffer, offset: Expr) -> ll.Value:
        """The address of an element, or a vector of addresses."""
        if buffer not in self.pointers:
            raise VerificationError(f"{self.kernel.name}: {buffer.name} is no buffer of the kernel")
        element = storage(VType(buffer.type.dtype))
        pointer = ll.instructions.GEPInstr(
            self.b.block, self.pointers[buffer], [self.value(offset)], inbounds=False, name="", source_etype=element
        )
        if offset.lanes > 1:
            pointer.type = ll.VectorType(POINTER, offset.lanes)
        self.b._insert(pointer)
        return pointer

    def load(self, expr: Expr, _: ll.Value) -> ll.Value:
        buffer, active = expr.attr
        offset, type, align = expr.args[0], storage(expr.type), expr.dtype.itemsize
        address = self.address(buffer, offset)
        if offset.lanes > 1:
            mask, zero = _mask(expr.lanes, active), ll.Constant(type, None)
            loaded = self._memory_intrinsic("masked.gather", type, type, (address, I32(align), mask, zero))
        elif active is None:
            loaded = self.b.load(address, align=align, typ=type)
        elif buffer.space == "stack":
            # Plain accesses let LLVM keep the buffer in registers.
            whole = self.b.load(address, align=align, typ=type)
            loaded = self.b.select(_mask(expr.lanes, active), whole, ll.Constant(type, None))
        else:
            mask, zero = _mask(expr.lanes, active), ll.Constant(type, None)
            loaded = self._memory_intrinsic("masked.load", type, type, (address, I32(align), mask, zero))
        if expr.dtype.kind != "bool":
            return loaded
        return self.b.icmp_unsigned("!=", loaded, ll.Constant(type, None))

    def store(self, store: Store) -> None:
        vtype = store.value.type
        type, align, value = storage(vtype), vtype.dtype.itemsize, self.value(store.value)
        if vtype.dtype.kind == "bool":
            value = self.b.zext(value, type)
        address = self.address(store.buffer, store.offset)
        mask = _mask(vtype.lanes, store.active)
        if store.offset.lanes > 1:
            self._memory_intrinsic("masked.scatter", VOID, type, (value, address, I32(align), mask))
        elif store.active is None:
            self.b.store(value, address, align=align)
        elif store.buffer.space == "stack":
            before = self.b.load(address, align=align, typ=type)
            self.b.store(self.b.select(mask, value, before), address, align=align)
        else:
            self._memory_intrinsic("masked.store", VOID, type, (value, address, I32(align), mask))

    def _memory_intrinsic(self, name: str, result: ll.Type, vector: ll.Type, args: Sequence[ll.Value]) -> ll.Value:
        parameters = [arg.type for arg in args]
        pointer = next(type for type in parameters if type == POINTER or getattr(type, "element", None) == POINTER)
        full = f"llvm.{name}.{_mangled(vector)}.{_mangled(pointer)}"
        return self.b.call(declare(self.module, full, result, parameters), args)


def register(type: VType) -> ll.Type:
    """The LLVM type of a value in registers."""
    return _shaped(_REGISTER[type.dtype.name], type.lanes)


def storage(type: VType) -> ll.Type:
    """The LLVM type of a value in memory, where a bool takes a byte."""
    return _shaped(I8 if type.dtype.kind == "bool" else _REGISTER[type.dtype.name], type.lanes)


def _shaped(element: ll.Type, lanes: int) -> ll.Type:
    return element if lanes == 1 else ll.VectorType(element, lanes)


def literal(type: VType, value: float | int | bool) -> ll.Value:
    """A literal in every lane."""
    element = _REGISTER[type.dtype.name]
    if type.dtype == BF16:
        value = int(np.asarray(value, type.dtype.numpy).view(np.uint16))
    if type.lanes == 1:
        return ll.Constant(element, value)
    return _Splat(register(type), ll.Constant(element, value))


class _Splat(ll.Constant):  # type: ignore[misc]
    """A vector literal of equal lanes, in LLVM's short form."""

    def _to_string(self) -> str:
        return f"{self.type} {self.get_reference()}"

    def get_reference(self) -> str:
        lane = self.constant[0]
        return f"splat ({lane.type} {lane.get_reference()})"


def _lanes(first: int, count: int) -> ll.Value:
    """The shuffle mask that takes `count` lanes from `first` on."""
    return ll.Constant(ll.VectorType(I32, count), list(range(first, first + count)))


def _mask(lanes: int, active: int | None) -> ll.Value:
    """The first `active` lanes (None: all)."""
    count = lanes if active is None else active
    return ll.Constant(ll.VectorType(I1, lanes), [int(lane < count) for lane in range(lanes)])


def _mangled(type: ll.Type) -> str:
    """The suffix that an overloaded intrinsic has for a type: f32, v16f32, p0."""
    if isinstance(type, ll.VectorType):
        return f"v{type.count}{_mangled(type.element)}"
    return "p0" if type == POINTER else str(type.intrinsic_name)


def _iota(emitter: _Emitter, expr: Expr) -> ll.Value:
    return ll.Constant(register(expr.type), list(range(expr.lanes))) if expr.lanes > 1 else register(expr.type)(0)


def _by_kind(**opcodes: str) -> dict[tuple[str, str], str]:
    """{(opcode, kind): name} from one line per opcode, its names for float, int, unsigned and bool; `-` is none."""
    kinds = ("float", "int", "unsigned", "bool")
    return {
        (opcode.strip("_"), kind): name
        for opcode, names in opcodes.items()
        for kind, name in zip(kinds, names.split(), strict=True)
        if name != "-"
    }


_INSTRUCTIONS = _by_kind(
    add="fadd add add or_",
    sub="fsub sub sub xor",
    mul="fmul mul mul and_",
    div="fdiv - - -",
    min="- - - and_",
    max="- - - or_",
    neg="fneg neg neg -",
    and_="- and_ and_ and_",
    or_="- or_ or_ or_",
    xor="- xor xor xor",
    not_="- not_ not_ not_",
    select="- - - select",
)

_INTRINSICS = _by_kind(
    min="minimum smin umin -",
    max="maximum smax umax -",
    abs="fabs - - -",
    sqrt="sqrt - - -",
    floor="floor - - -",
    ceil="ceil - - -",
    round="roundeven - - -",
)

_PREDICATES = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

_EMITTERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("div", "rem"), _Emitter.divide),
    **dict.fromkeys(("shl", "shr"), _Emitter.shift),
    "fma": _Emitter.fma,
    "dot2": _Emitter.dot2,
    "convert": _Emitter.convert,
    "broadcast": _Emitter.broadcast,
    "reduce": _Emitter.reduce,
    "load": _Emitter.load,
    "iota": _iota,
    "bitcast": lambda emitter, expr, x: emitter.b.bitcast(x, register(expr.type)),
    "extract": lambda emitter, expr, x: emitter.b.extract_element(x, I32(expr.attr)),
    "abs": lambda emitter, expr, x: emitter.intrinsic("smax", (x, emitter.b.neg(x))) if expr.dtype.kind == "int" else x,
    **dict.fromkeys(("floor", "ceil", "round"), lambda emitter, expr, x: x),
}
