"""Convolutions and their gradients as matrix products: no patches are copied, rows are read where they lie.

Where a window reaches beyond an image, the image's buffer has a border of zeros (`Product.border` says how wide).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gradloom.compiler.ir import Value
from gradloom.compiler.kernels.product import NO_BORDER, Product
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Position
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad, Convolution
from gradloom.compiler.ops.winograd import TAPS, WinogradConv2D, WinogradConv2DKernelGrad


@dataclass(frozen=True)
class _ImageProduct(Product):
    @property
    def op(self) -> Convolution:
        assert isinstance(self.node.op, Convolution)
        return self.node.op

    @property
    def strided_a(self) -> bool:
        return False

    @property
    def strided_b(self) -> bool:
        return False


@dataclass(frozen=True)
class ForwardProduct(_ImageProduct):
    """y[b, i, j, o] = Σ x[b, s·i + d·u − p, s·j + d·v − p, c] · k[u, v, c, o]: rows b, i, j, depth u, v, c."""

    @classmethod
    def of(cls, node: Value) -> ForwardProduct:
        """The product that a convolution node asks for."""
        (x, k), groups = node.inputs, node.op.groups  # type: ignore[attr-defined]
        b, height, width, filters = node.shape
        batch = (groups,) if groups > 1 else ()
        return cls(node, x, k, batch, b * height * width, filters // groups, k.shape[:3])

    @property
    def border(self) -> tuple[int, int, int, int]:
        return _window_border(self.op, self.node.shape[1:3], self.b.shape[:2], self.a.shape[1:3])

    def place(self, b: Builder, row: Index) -> Position:
        return b.unravel(row, self.node.shape[:3])

    def at_a(self, batch: Position, place: Position, depth: Position) -> Position:
        image, *pixel = place
        *tap, channel = depth
        return (image, *_window_position(self.op, pixel, tap), _in_group(batch, channel, self.depth[2]))

    def at_b(self, batch: Position, depth: Position, column: Index) -> Position:
        return (*depth, _in_group(batch, column, self.columns))

    def at_result(self, batch: Position, place: Position, column: Index) -> Position:
        return (*place, _in_group(batch, column, self.columns))


@dataclass(frozen=True)
class KernelGradProduct(_ImageProduct):
    """dk[u, v, c, o] = Σ x[b, s·i + d·u − p, s·j + d·v − p, c] · dy[b, i, j, o]: rows u, v, c, depth b, i, j."""

    @classmethod
    def of(cls, node: Value) -> KernelGradProduct:
        """The product that a kernel gradient node asks for."""
        (x, dy), groups = node.inputs, node.op.groups  # type: ignore[attr-defined]
        height, width, channels, filters = node.shape
        batch = (groups,) if groups > 1 else ()
        return cls(node, x, dy, batch, height * width * channels, filters // groups, dy.shape[:3])

    @property
    def strided_a(self) -> bool:
        return True

    @property
    def border(self) -> tuple[int, int, int, int]:
        return _window_border(self.op, self.b.shape[1:3], self.node.shape[:2], self.a.shape[1:3])

    def place(self, b: Builder, row: Index) -> Position:
        return b.unravel(row, self.node.shape[:3])

    def at_a(self, batch: Position, place: Position, depth: Position) -> Position:
        *tap, channel = place
        image, *pixel = depth
        return (image, *_window_position(self.op, pixel, tap), _in_group(batch, channel, self.node.shape[2]))

    def at_b(self, batch: Position, depth: Position, column: Index) -> Position:
        return (*depth, _in_group(batch, column, self.columns))

    def at_result(self, batch: Position, place: Position, column: Index) -> Position:
        return (*place, _in_group(batch, column, self.columns))


@dataclass(frozen=True)
class Phase:
    """Along one axis, the input's pixels s·n + `offset`, and the taps `first` + `step`·t that reach them.

    Pixel n is reached by tap t from the output's pixel n + `shift` − `back`·t.
    """

    offset: int
    pixels: int
    first: int
    step: int
    taps: int
    shift: int
    back: int


@dataclass(frozen=True)
class InputGradProduct(_ImageProduct):
    """dx at the pixels of one phase: Σ dy[b, i, j, o] · k[u, v, c, o] over the taps that reach them.

    With strides, neighbouring pixels of the input are reached by different taps; pixels that the same taps reach are a
    phase of their own. Rows are b and the phase's pixels, the depth is its taps and o.
    """

    vertical: Phase
    horizontal: Phase

    @classmethod
    def phases(cls, node: Value) -> Iterator[InputGradProduct]:
        """The products that an input gradient node asks for: they cover all pixels."""
        op, (dy, k) = node.op, node.inputs
        assert isinstance(op, Conv2DInputGrad)
        images, height, width, channels = node.shape
        batch = (op.groups,) if op.groups > 1 else ()
        lines = list(_phases(height, k.shape[0], op.strides[0], op.padding[0][0], op.dilation[0]))
        for vertical in lines:
            for horizontal in _phases(width, k.shape[1], op.strides[1], op.padding[1][0], op.dilation[1]):
                rows = images * vertical.pixels * horizontal.pixels
                depth = (vertical.taps, horizontal.taps, dy.shape[3] // op.groups)
                yield cls(node, dy, k, batch, rows, channels // op.groups, depth, vertical, horizontal)

    @property
    def strided_b(self) -> bool:
        return True

    @property
    def border(self) -> tuple[int, int, int, int]:
        found: list[int] = []
        for phase, size in ((self.vertical, self.a.shape[1]), (self.horizontal, self.a.shape[2])):
            low = phase.shift - phase.back * (phase.taps - 1)
            found += [max(0, -low), max(0, phase.pixels - 1 + phase.shift - (size - 1))] if phase.taps else [0, 0]
        return found[0], found[1], found[2], found[3]

    def place(self, b: Builder, row: Index) -> Position:
        return b.unravel(row, (self.node.shape[0], self.vertical.pixels, self.horizontal.pixels))

    def at_a(self, batch: Position, place: Position, depth: Position) -> Position:
        image, line, column = place
        u, v, filter_ = depth
        i = line + self.vertical.shift + u.scaled(-self.vertical.back)
        j = column + self.horizontal.shift + v.scaled(-self.horizontal.back)
        return (image, i, j, _in_group(batch, filter_, self.depth[2]))

    def at_b(self, batch: Position, depth: Position, column: Index) -> Position:
        u, v, filter_ = depth
        return (
            u.scaled(self.vertical.step) + self.vertical.first,
            v.scaled(self.horizontal.step) + self.horizontal.first,
            column,
            _in_group(batch, filter_, self.depth[2]),
        )

    def at_result(self, batch: Position, place: Position, column: Index) -> Position:
        image, line, row = place
        stride_v, stride_h = self.op.strides
        return (
            image,
            line.scaled(stride_v) + self.vertical.offset,
            row.scaled(stride_h) + self.horizontal.offset,
            _in_group(batch, column, self.columns),
        )


def products(node: Value) -> list[Product]:
    """The matrix products that a convolution, or a gradient of one, consists of."""
    if isinstance(node.op, Conv2D):
        return [ForwardProduct.of(node)]
    if isinstance(node.op, Conv2DKernelGrad):
        return [KernelGradProduct.of(node)]
    return list(InputGradProduct.phases(node))


def border_needed(node: Value) -> tuple[int, int, int, int]:
    """The border of zeros that the first operand of a convolution, or of a gradient of one, must have."""
    if isinstance(node.op, WinogradConv2D | WinogradConv2DKernelGrad):
        return _tile_border(node.op, node.inputs[0].shape[1:3])
    # Images without a pixel have no product that reaches one.
    borders = [product.border for product in products(node)] or [NO_BORDER]
    top, bottom, left, right = (max(sides) for sides in zip(*borders, strict=True))
    return top, bottom, left, right


def _tile_border(op: WinogradConv2D | WinogradConv2DKernelGrad, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """How far whole tiles reach beyond images of `size`."""
    sides: list[int] = []
    for (before, after), extent in zip(op.padding, size, strict=True):
        pixels = extent + before + after - (TAPS - 1)
        reach = -(-pixels // op.tile) * op.tile + TAPS - 2 - before
        sides += [before, max(0, reach - (extent - 1))]
    return sides[0], sides[1], sides[2], sides[3]


def _phases(size: int, taps: int, stride: int, padding: int, dilation: int) -> Iterator[Phase]:
    """The phases of an axis of `size` pixels: tap u reaches pixel h if h + padding − dilation·u divides by stride."""
    for offset in range(min(stride, size)):
        reaching = [u for u in range(taps) if (offset + padding - dilation * u) % stride == 0]
        pixels = -(-(size - offset) // stride)
        first = reaching[0] if reaching else 0
        step = reaching[1] - first if len(reaching) > 1 else 1
        shift = (offset + padding - dilation * first) // stride
        yield Phase(offset, pixels, first, step, len(reaching), shift, dilation * step // stride)


def _window_position(op: Convolution, pixel: list[Index], tap: list[Index]) -> Position:
    """Where a tap of the window of an output pixel lies in the input."""
    return tuple(
        at.scaled(stride) + u.scaled(dilation) + (-before)
        for at, u, stride, dilation, (before, _) in zip(pixel, tap, op.strides, op.dilation, op.padding, strict=True)
    )


def _window_border(
    op: Convolution, pixels: tuple[int, ...], window: tuple[int, ...], size: tuple[int, ...]
) -> tuple[int, int, int, int]:
    sides: list[int] = []
    for axis in (0, 1):
        before = op.padding[axis][0]
        reach = (pixels[axis] - 1) * op.strides[axis] + (window[axis] - 1) * op.dilation[axis] - before
        sides += [before, max(0, reach - (size[axis] - 1))]
    return sides[0], sides[1], sides[2], sides[3]


def _in_group(batch: Position, channel: Index, size: int) -> Index:
    """A channel of a group, counted over all groups."""
    return batch[0].scaled(size) + channel if batch else channel
