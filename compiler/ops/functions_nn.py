"""Functions of `keras.ops` for networks: activations, softmax, and cross-entropies in numerically safe form."""

from __future__ import annotations

import math

from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.arithmetic import Divide
from gradloom.compiler.ops.comparison import Equal
from gradloom.compiler.ops.elementwise import Exp, Sigmoid
from gradloom.compiler.ops.functions_elementwise import (
    _log1p_exp,
    absolute,
    clip,
    erf,
    exp,
    expm1,
    log,
    maximum,
    minimum,
    sigmoid,
    tanh,
    where,
)
from gradloom.compiler.ops.functions_reduction import max as max_
from gradloom.compiler.ops.functions_reduction import sum as sum_
from gradloom.compiler.ops.functions_shape import expand_dims, squeeze
from gradloom.compiler.ops.markers import StopGradient
from gradloom.compiler.ops.movement import Iota, Reshape
from gradloom.compiler.ops.operands import Axis, TensorLike, as_value, canonical_axis, convert, floats, numbers
from gradloom.compiler.ops.reductions import Sum
from gradloom.compiler.types import I32

EPSILON = 1e-7
"""How far probabilities are kept from 0 and 1 before their logarithm is taken, where no logits are known."""

# Activations.


def relu(x: TensorLike) -> Value:
    """max(x, 0); NaN stays. The derivative at 0 is 0."""
    (value,) = numbers(x, function="relu")
    return maximum(value, 0)


def relu6(x: TensorLike) -> Value:
    """min(max(x, 0), 6)."""
    return minimum(relu(x), 6)


def leaky_relu(x: TensorLike, negative_slope: float = 0.2) -> Value:
    """x where x ≥ 0, else negative_slope·x."""
    (value,) = floats(x, function="leaky_relu")
    return where(value >= 0, value, value * negative_slope)


def elu(x: TensorLike, alpha: float = 1.0) -> Value:
    """x where x > 0, else alpha·(eˣ − 1)."""
    (value,) = floats(x, function="elu")
    positive = value > 0
    # The exponential sees no positive x: where it overflowed, the cotangent would be 0·inf.
    return where(positive, value, alpha * expm1(where(positive, 0.0, value)))


def selu(x: TensorLike) -> Value:
    """The scaled elu of self-normalizing networks (Klambauer et al., 2017)."""
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def celu(x: TensorLike, alpha: float = 1.0) -> Value:
    """max(x, 0) + min(alpha·(e^(x/alpha) − 1), 0): elu with a continuous derivative for any alpha."""
    (value,) = floats(x, function="celu")
    positive = value > 0
    return where(positive, value, alpha * expm1(where(positive, 0.0, value) / alpha))


def silu(x: TensorLike) -> Value:
    """x·sigmoid(x)."""
    (value,) = floats(x, function="silu")
    return value * sigmoid(value)


def swish(x: TensorLike) -> Value:
    """x·sigmoid(x): another name of `silu`."""
    return silu(x)


def gelu(x: TensorLike, approximate: bool = True) -> Value:
    """x·Φ(x), Φ the normal distribution: by tanh, or by erf if not `approximate`."""
    (value,) = floats(x, function="gelu")
    if approximate:
        inner = math.sqrt(2 / math.pi) * (value + 0.044715 * (value * value * value))
        return 0.5 * value * (1.0 + tanh(inner))
    return 0.5 * value * (1.0 + erf(value / math.sqrt(2)))


def softplus(x: TensorLike) -> Value:
    """log(1 + eˣ), without overflow."""
    return _log1p_exp(*floats(x, function="softplus"))


def softsign(x: TensorLike) -> Value:
    """x / (1 + |x|)."""
    (value,) = floats(x, function="softsign")
    return value / (1.0 + absolute(value))


def hard_sigmoid(x: TensorLike) -> Value:
    """relu6(x + 3) / 6."""
    return relu6(floats(x, function="hard_sigmoid")[0] + 3.0) / 6.0


def log_sigmoid(x: TensorLike) -> Value:
    """log(sigmoid(x)) = −softplus(−x), without underflow."""
    return -softplus(-floats(x, function="log_sigmoid")[0])


# Softmax.


def softmax(x: TensorLike, axis: Axis = -1) -> Value:
    """eˣ / Σ eˣ along an axis (or several; all, if None): positive, with sum 1."""
    (value,) = floats(x, function="softmax")
    powers = exp(_below_zero(value, axis))
    return powers / sum_(powers, axis, keepdims=True)


def log_softmax(x: TensorLike, axis: Axis = -1) -> Value:
    """log(softmax(x)), without underflow: −inf only where x is −inf."""
    (value,) = floats(x, function="log_softmax")
    shifted = _below_zero(value, axis)
    return shifted - log(sum_(exp(shifted), axis, keepdims=True))


def _below_zero(x: Value, axis: Axis) -> Value:
    """x less its maximum: softmax does not change, and nothing overflows. The maximum is a constant for gradients."""
    return x - x.graph.apply(StopGradient(), max_(x, axis, keepdims=True))


def log_probability(p: TensorLike) -> Value:
    """log p, from the logits if p was made by `softmax` or `sigmoid`.

    Then it is exact for any finite logits, also where p itself is rounded to 0 or 1, and has the logits' gradient.
    Else p is moved into [1e-7, 1 − 1e-7] first, as in Keras: the logarithm stays between −16.2 and −1e-7, and its
    gradient is 0 outside.
    """
    (value,) = floats(p, function="log_probability")
    exponent = _softmax_exponent(value)
    if exponent is not None:
        shifted, total = exponent
        return shifted - log(total)
    if isinstance(value.op, Sigmoid):
        return log_sigmoid(value.inputs[0])
    return log(clip(value, EPSILON, 1 - EPSILON))


def log_complement(p: TensorLike) -> Value:
    """log(1 − p), from the logits if p was made by `sigmoid`; else as `log_probability`."""
    (value,) = floats(p, function="log_complement")
    if isinstance(value.op, Sigmoid):
        return log_sigmoid(-value.inputs[0])
    return log(1.0 - clip(value, EPSILON, 1 - EPSILON))


def _softmax_exponent(p: Value) -> tuple[Value, Value] | None:
    """(z, s) if p is e^z / s with s the sum of e^z along some axes: log p is z − log s then."""
    if not isinstance(p.op, Divide):
        return None
    powers, total = p.inputs
    summed = total.inputs[0] if isinstance(total.op, Reshape) else total
    if isinstance(powers.op, Exp) and isinstance(summed.op, Sum) and summed.inputs == (powers,):
        return powers.inputs[0], total
    return None


# Cross-entropies.


def sparse_categorical_crossentropy(
    target: TensorLike, output: TensorLike, from_logits: bool = False, axis: int = -1
) -> Value:
    """−log of the probability in `output` of the class that each integer of `target` names.

    `output` has one axis more than `target` (or `target` a last axis of size 1). Classes must lie inside of that axis:
    a running program cannot raise, and one outside gives a number without meaning (`fit` checks its labels before).
    """
    value = floats(output, function="sparse_categorical_crossentropy")[0]
    at = canonical_axis(axis, value.ndim, "sparse_categorical_crossentropy")
    label = as_value(target, value, "sparse_categorical_crossentropy")
    if label.ndim == value.ndim and label.shape[-1] == 1:
        label = squeeze(label, -1)
    if label.shape != value.shape[:at] + value.shape[at + 1 :]:
        raise ShapeError(
            "sparse_categorical_crossentropy: expected one class for each row of the output. "
            f"Received: target {label.type}, output {value.type}"
        )
    positions = value.graph.apply(Iota(value.shape, at, I32))
    own = value.graph.apply(Equal(), positions, expand_dims(convert(label, I32), at))
    logits, total = _scores(value, at, from_logits)
    # Selected, not multiplied: −inf in another class must not make NaN.
    picked = sum_(where(own, logits, 0.0), at)
    if total is None:
        return -picked
    return log(squeeze(total, at)) - picked


def _scores(output: Value, axis: int, from_logits: bool) -> tuple[Value, Value | None]:
    """(z, s) with log p = z − log s along an axis, s kept with size 1 there; s is None where z is log p itself."""
    if from_logits:
        shifted = _below_zero(output, axis)
        return shifted, sum_(exp(shifted), axis, keepdims=True)
    exponent = _softmax_exponent(output)
    if exponent is not None and exponent[1].shape == (*output.shape[:axis], 1, *output.shape[axis + 1 :]):
        return exponent
    return log(clip(output / sum_(output, axis, keepdims=True), EPSILON, 1 - EPSILON)), None


def categorical_crossentropy(
    target: TensorLike, output: TensorLike, from_logits: bool = False, axis: int = -1
) -> Value:
    """−Σ target·log(probability) along an axis: `target` holds probabilities, or one-hot rows."""
    wanted, value = _same_shape(target, output, "categorical_crossentropy")
    at = canonical_axis(axis, value.ndim, "categorical_crossentropy")
    scores, total = _scores(value, at, from_logits)
    logarithms = scores if total is None else scores - log(total)
    return -sum_(wanted * logarithms, at)


def binary_crossentropy(target: TensorLike, output: TensorLike, from_logits: bool = False) -> Value:
    """−(target·log p + (1 − target)·log(1 − p)), element by element."""
    wanted, value = _same_shape(target, output, "binary_crossentropy")
    if from_logits:
        # target·softplus(−z) + (1 − target)·softplus(z), with softplus(−z) = softplus(z) − z.
        return softplus(value) - wanted * value
    if isinstance(value.op, Sigmoid):
        return binary_crossentropy(wanted, value.inputs[0], from_logits=True)
    return -(wanted * log_probability(value) + (1.0 - wanted) * log_complement(value))


def _same_shape(target: TensorLike, output: TensorLike, function: str) -> tuple[Value, Value]:
    value = floats(output, function=function)[0]
    wanted = convert(as_value(target, value, function), value.dtype)
    if wanted.shape != value.shape:
        raise ShapeError(f"{function}: expected one shape. Received: target {wanted.type}, output {value.type}")
    return wanted, value
