"""Elementary functions as sequences of arithmetic in loop IR, for f32 and f64, scalars and vectors alike.

Every result is within 4 units in the last place, with IEEE's special values. The methods are the classical ones: Cody
and Waite's two-part argument reduction for the exponential, the odd series of the logarithm in s = g/(2+g) as in
Tang's papers and fdlibm, Dekker's exact products for the double-double logarithm that `power` needs. The coefficients
are minimax fits over the reduced interval, computed by the Remez exchange in 40 digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.types import F32, F64, I32, I64, DType

_INFINITY = math.inf


@dataclass(frozen=True)
class _Format:
    """What a function must know of a floating-point format, with its own ranges and coefficients.

    ln 2 = `ln2_high` + `ln2_low`, where the first has so few bits that its product with an exponent is exact.
    Outside `exp_range` the exponential is 0 or inf. Below `tiny`, x + x² rounds to x.
    """

    bits: DType
    mantissa: int
    bias: int
    ln2_high: float
    ln2_low: float
    exp_range: tuple[float, float]
    expm1_low: float
    tanh_high: float
    erf_high: float
    sqrt_half: int
    exp: Sequence[float]
    log: Sequence[float]
    erf_small: Sequence[float]
    erf_large: Sequence[float]

    @property
    def tiny(self) -> float:
        return 2.0 ** -(self.mantissa + 2)

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def sign(self) -> int:
        return -(1 << (self.bits.bits - 1))


_FORMATS = {
    F32: _Format(
        bits=I32,
        mantissa=23,
        bias=127,
        ln2_high=0.693145751953125,
        ln2_low=1.4286068203094173e-06,
        exp_range=(-104.0, 89.0),
        expm1_low=-20.0,
        tanh_high=10.0,
        erf_high=4.0,
        sqrt_half=0x3F3504F3,
        # (e^r - 1 - r) / r² on |r| ≤ ln 2
        exp=(0.5000003, 0.16666676, 0.04166163, 0.008332357, 0.0014098804, 0.00020135187),
        # (log((1+s)/(1-s)) - 2s) / s³ in s², |s| ≤ 3 - √8
        log=(0.66666663, 0.40000337, 0.2853724, 0.23583512),
        # erf(x)/x - 1 in x², |x| ≤ 1
        erf_small=(
            0.12837917,
            -0.37612626,
            0.112836,
            -0.026854401,
            0.005189444,
            -0.0008019945,
            7.8858524e-05,
        ),
        # -log(1 - erf(1 + u)), 0 ≤ u ≤ 3
        erf_large=(1.8496056, 2.6389668, 0.8431182, 0.041501224, -0.009891666, 0.001826666, -0.0001856927),
    ),
    F64: _Format(
        bits=I64,
        mantissa=52,
        bias=1023,
        ln2_high=0.6931471803691238,
        ln2_low=1.9082149292705877e-10,
        exp_range=(-746.0, 710.0),
        expm1_low=-40.0,
        tanh_high=20.0,
        erf_high=6.0,
        sqrt_half=0x3FE6A09E_00000000,
        exp=(
            0.49999999999999956,
            0.16666666666666652,
            0.04166666666669317,
            0.008333333333338766,
            0.001388888888447253,
            0.0001984126983492867,
            2.4801590447688205e-05,
            2.7557322709242583e-06,
            2.7556231141849117e-07,
            2.5051124211044695e-08,
            2.1057170406247642e-09,
            1.6197319549804604e-10,
        ),
        log=(
            0.6666666666666735,
            0.3999999999941153,
            0.2857142874318014,
            0.22222198483477115,
            0.1818356938672545,
            0.15313911580127149,
            0.14797429847269847,
        ),
        erf_small=(
            0.1283791670955126,
            -0.3761263890318375,
            0.11283791670954882,
            -0.026866170645077358,
            0.00522397762482311,
            -0.0008548326981104134,
            0.00012055331120690037,
            -1.4925595465005722e-05,
            1.6461003360369306e-06,
            -1.6350340052577924e-07,
            1.465993861876087e-08,
            -1.1373402550046214e-09,
            5.957984903320066e-11,
        ),
        erf_large=(
            1.8496055099332482,
            2.6389675142347886,
            0.843107256358664,
            0.0415610980420203,
            -0.010033825376363631,
            0.001977902579149907,
            -0.00023732252455065366,
            -2.627775976143192e-05,
            2.7158890083084196e-05,
            -9.608585881320272e-06,
            2.0594404762940488e-06,
            -1.4261326624423326e-07,
            -9.770268872549376e-08,
            5.21063159131209e-08,
            -1.4933493466753036e-08,
            2.8690688791212954e-09,
            -3.690161778419172e-10,
            2.8885890065541807e-11,
            -1.0420129434503589e-12,
        ),
    ),
}

# log((1+s)/(1-s)) = 2s + s³·(2/3 + s²·tail(s²)), to 80 bits, with 2/3 as the sum of two doubles.
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
_LOG_TAIL = (
    0.4,
    0.28571428571428376,
    0.22222222222290913,
    0.1818181816919652,
    0.15384616758581787,
    0.13333240133302574,
    0.11768683807713748,
    0.10422724384136782,
    0.1101466266943797,
)


def exp(b: Builder, x: Expr) -> Expr:
    """e^x; overflows to inf, underflows gradually."""
    return _exp_sum(b, x, None)


def expm1(b: Builder, x: Expr) -> Expr:
    """e^x - 1, exact to the last places near zero too."""
    form = _FORMATS[x.dtype]
    # Computed at half its size, since 2^n itself overflows just before the result does.
    rest, half = _reduce(b, _clamp(b, x, form.expm1_low, form.exp_range[1]), offset=-1)
    y = b.mul(b.fma(half, _expm1_reduced(b, rest), b.sub(half, 0.5)), 2.0)
    return b.select(b.compare("lt", b.unary("abs", x), form.tiny), x, y)


def sigmoid(b: Builder, x: Expr) -> Expr:
    """1 / (1 + e^-x), from an exponential that cannot overflow."""
    e = exp(b, b.unary("neg", b.unary("abs", x)))
    return b.div(b.select(b.compare("ge", x, 0.0), 1.0, e), b.add(e, 1.0))


def tanh(b: Builder, x: Expr) -> Expr:
    """The hyperbolic tangent, t / (t + 2) with t = e^2|x| - 1."""
    size = b.binary("min", b.unary("abs", x), _FORMATS[x.dtype].tanh_high)
    rest, power_of_two = _reduce(b, b.add(size, size))
    t = b.fma(power_of_two, _expm1_reduced(b, rest), b.sub(power_of_two, 1.0))
    return _with_sign_of(b, x, b.div(t, b.add(t, 2.0)))


def log(b: Builder, x: Expr) -> Expr:
    """The natural logarithm: -inf of zero, NaN of negative numbers."""
    exponent, fraction = _split(b, x)
    y = _log_sum(b, exponent, b.sub(fraction, 1.0), None)
    y = b.select(b.compare("lt", x, _INFINITY), y, x)
    return b.select(b.compare("gt", x, 0.0), y, _pole(b, x, 0.0))


def log1p(b: Builder, x: Expr) -> Expr:
    """log(1 + x), exact to the last places near zero too."""
    u = b.add(x, 1.0)
    exponent, fraction = _split_normal(b, u, 0.0)
    # What 1 + x lost in rounding, and what that adds to the logarithm.
    lost = b.select(b.compare("gt", x, 1.0), b.sub(1.0, b.sub(u, x)), b.sub(x, b.sub(u, 1.0)))
    near = b.compare("eq", exponent, 0.0)
    correction = b.select(near, 0.0, b.div(lost, u))
    y = _log_sum(b, exponent, b.select(near, x, b.sub(fraction, 1.0)), correction)
    y = b.select(b.compare("lt", b.unary("abs", x), _FORMATS[x.dtype].tiny), x, y)
    y = b.select(b.compare("lt", x, _INFINITY), y, x)
    return b.select(b.compare("gt", x, -1.0), y, _pole(b, x, -1.0))


def erf(b: Builder, x: Expr) -> Expr:
    """The error function: an odd polynomial below 1, beyond it 1 - e^-h(|x|) with a polynomial h."""
    form = _FORMATS[x.dtype]
    size = b.unary("abs", x)
    small = b.fma(_polynomial(b, b.mul(x, x), form.erf_small), x, x)
    h = _polynomial(b, b.sub(b.binary("min", size, form.erf_high), 1.0), form.erf_large)
    large = _with_sign_of(b, x, b.sub(1.0, exp(b, b.unary("neg", h))))
    return b.select(b.compare("lt", size, 1.0), small, large)


def power(b: Builder, x: Expr, y: Expr) -> Expr:
    """x^y as C's pow has it: a negative base is defined for integral exponents, 1 and exponent 0 give 1."""
    lanes = max(x.lanes, y.lanes)
    x, y = b.broadcast(x, lanes), b.broadcast(y, lanes)
    if x.dtype == F64:
        return _power(b, x, y)
    return b.convert(_power(b, b.convert(x, F64), b.convert(y, F64), extra=False), x.dtype)


def _power(b: Builder, x: Expr, y: Expr, extra: bool = True) -> Expr:
    """x^y in f64; with `extra` bits in the logarithm, else right to some 40 bits, enough for f32."""
    size = b.unary("abs", x)
    if extra:
        high, low = _log_double(b, size)
        product, rest = _two_product(b, y, high)
        rest = b.fma(y, low, rest)
        rest = b.select(b.compare("lt", b.unary("abs", product), 1000.0), rest, 0.0)
        result = _exp_sum(b, product, rest)
    else:
        result = _exp_sum(b, b.mul(y, log(b, size)), None)
    one = b.const(1.0, F64, x.lanes)
    result = b.select(b.compare("eq", size, 1.0), one, result)

    half = b.mul(y, 0.5)
    integral = b.compare("eq", b.unary("floor", y), y)
    odd = b.binary("and", integral, b.compare("ne", b.unary("floor", half), half))
    negated = b.select(odd, _with_sign_of(b, x, result), result)
    finite_negative = b.binary("and", b.compare("lt", x, 0.0), b.compare("gt", x, -_INFINITY))
    undefined = b.binary("and", finite_negative, b.unary("not", integral))
    result = b.select(undefined, math.nan, negated)
    # Last, because 1^NaN and NaN^0 are 1.
    is_one = b.binary("or", b.compare("eq", x, 1.0), b.compare("eq", y, 0.0))
    return b.select(is_one, one, result)


def _exp_sum(b: Builder, x: Expr, rest: Expr | None) -> Expr:
    """e^(x + rest) for a `rest` far smaller than x.

    x = 2m·ln 2 + r: an even power of two is applied as 2^m twice, which reaches from the subnormals to inf.
    """
    form = _FORMATS[x.dtype]
    r, half_power = _reduce(b, _clamp(b, x, *form.exp_range), step=2)
    if rest is not None:
        r = b.add(r, rest)
    p = b.fma(b.fma(_polynomial(b, r, form.exp), r, 1.0), r, 1.0)
    return b.mul(b.mul(p, half_power), half_power)


def _reduce(b: Builder, x: Expr, step: int = 1, offset: int = 0) -> tuple[Expr, Expr]:
    """r and 2^(n + offset) with x = n·step·ln 2 + r and |r| ≤ step·ln 2 / 2.

    Adding 1.5·2^mantissa rounds to an integer and leaves it in the low bits, from where it is shifted, with the
    bias, into an exponent.
    """
    form = _FORMATS[x.dtype]
    magic = 1.5 * 2.0**form.mantissa + (form.bias + offset)
    t = b.fma(x, 1.0 / (step * math.log(2.0)), magic)
    n = b.sub(t, magic)
    r = b.fma(n, -step * form.ln2_high, x)
    r = b.fma(n, -step * form.ln2_low, r)
    return r, b.bitcast(b.binary("shl", b.bitcast(t, form.bits), form.mantissa), x.dtype)


def _expm1_reduced(b: Builder, r: Expr) -> Expr:
    """e^r - 1 for a reduced r."""
    return b.fma(b.mul(_polynomial(b, r, _FORMATS[r.dtype].exp), r), r, r)


def _split(b: Builder, x: Expr) -> tuple[Expr, Expr]:
    """k and f with x = 2^k·f and √½ ≤ f < √2, for positive finite x, subnormals included."""
    form = _FORMATS[x.dtype]
    shift = float(form.mantissa + 2)
    subnormal = b.compare("lt", x, form.smallest_normal)
    x = b.select(subnormal, b.mul(x, 2.0**shift), x)
    return _split_normal(b, x, b.select(subnormal, b.const(shift, x.dtype, x.lanes), 0.0))


def _split_normal(b: Builder, x: Expr, scaled: Expr | float) -> tuple[Expr, Expr]:
    """As `_split`, for an x that is normal and 2^scaled times too large."""
    form = _FORMATS[x.dtype]
    one = form.bias << form.mantissa
    bits = b.add(b.bitcast(x, form.bits), one - form.sqrt_half)
    # The exponent becomes the low bits of a number of exponent `mantissa`: a conversion that is cheap everywhere.
    anchor = (form.bias + form.mantissa) << form.mantissa
    exponent = b.bitcast(b.binary("or", b.binary("shr", bits, form.mantissa), anchor), x.dtype)
    exponent = b.sub(exponent, 2.0**form.mantissa + form.bias)
    fraction = b.add(b.binary("and", bits, 2**form.mantissa - 1), form.sqrt_half)
    return b.sub(exponent, scaled), b.bitcast(fraction, x.dtype)


def _log_sum(b: Builder, exponent: Expr, g: Expr, correction: Expr | None) -> Expr:
    """exponent·ln 2 + log(1 + g) + correction, smallest terms first."""
    form = _FORMATS[g.dtype]
    s = b.div(g, b.add(g, 2.0))
    z = b.mul(s, s)
    half_square = b.mul(b.mul(g, 0.5), g)
    low = b.mul(exponent, form.ln2_low)
    if correction is not None:
        low = b.add(low, correction)
    low = b.fma(s, b.fma(z, _polynomial(b, z, form.log), half_square), low)
    return b.fma(exponent, form.ln2_high, b.sub(g, b.sub(half_square, low)))


def _log_double(b: Builder, x: Expr) -> tuple[Expr, Expr]:
    """log(x) as the sum of two doubles, to some 64 bits: what an exponent of up to 745 needs."""
    form = _FORMATS[F64]
    exponent, fraction = _split(b, x)
    g = b.sub(fraction, 1.0)
    # s = g / (2 + g) and its remainder.
    d = b.add(g, 2.0)
    d_low = b.sub(g, b.sub(d, 2.0))
    s = b.div(g, d)
    product, error = _two_product(b, s, d)
    s_low = b.div(b.sub(b.sub(b.sub(g, product), error), b.mul(s, d_low)), d)
    # cube = s³
    z, z_low = _two_product(b, s, s)
    z_low = b.fma(b.add(s, s), s_low, z_low)
    cube, cube_low = _two_product(b, z, s)
    cube_low = b.add(cube_low, b.fma(z, s_low, b.mul(z_low, s)))
    # factor = 2/3 + s²·tail
    tail = b.mul(z, _polynomial(b, z, _LOG_TAIL))
    factor = b.add(tail, _TWO_THIRDS[0])
    factor_low = b.add(b.sub(tail, b.sub(factor, _TWO_THIRDS[0])), _TWO_THIRDS[1])
    term, term_low = _two_product(b, cube, factor)
    term_low = b.add(term_low, b.fma(cube, factor_low, b.mul(cube_low, factor)))
    # 2s + s³·factor, then the exponent's share.
    twice = b.add(s, s)
    series = b.add(twice, term)
    series_low = b.add(b.add(b.sub(twice, series), term), b.fma(s_low, 2.0, term_low))
    whole = b.mul(exponent, form.ln2_high)
    high = b.add(whole, series)
    low = b.add(b.add(b.sub(whole, high), series), b.fma(exponent, form.ln2_low, series_low))
    high = b.select(b.compare("lt", x, _INFINITY), high, x)
    return b.select(b.compare("eq", x, 0.0), -_INFINITY, high), low


def _two_product(b: Builder, x: Expr, y: Expr) -> tuple[Expr, Expr]:
    """x·y rounded, and the exact error, by products of 26-bit halves: right with and without an fma."""
    product = b.mul(x, y)
    x_high, x_low = _halves(b, x)
    y_high, y_low = _halves(b, y)
    error = b.sub(b.mul(x_high, y_high), product)
    error = b.add(error, b.mul(x_high, y_low))
    error = b.add(error, b.mul(x_low, y_high))
    return product, b.add(error, b.mul(x_low, y_low))


def _halves(b: Builder, x: Expr) -> tuple[Expr, Expr]:
    high = b.bitcast(b.binary("and", b.bitcast(x, I64), -(1 << 27)), F64)
    return high, b.sub(x, high)


def _polynomial(b: Builder, x: Expr, coefficients: Sequence[float]) -> Expr:
    """Σ coefficients[i]·x^i by Horner's rule."""
    total = b.const(coefficients[-1], x.dtype, x.lanes)
    for coefficient in reversed(coefficients[:-1]):
        total = b.fma(total, x, coefficient)
    return total


def _clamp(b: Builder, x: Expr, low: float, high: float) -> Expr:
    """x within bounds; NaN stays NaN."""
    return b.binary("min", b.binary("max", x, low), high)


def _with_sign_of(b: Builder, x: Expr, size: Expr) -> Expr:
    """A non-negative number with the sign of x."""
    form = _FORMATS[x.dtype]
    sign = b.binary("and", b.bitcast(x, form.bits), form.sign)
    return b.bitcast(b.binary("or", b.bitcast(size, form.bits), sign), x.dtype)


def _pole(b: Builder, x: Expr, at: float) -> Expr:
    """What a logarithm is where it has no finite value: -inf at its pole, else NaN."""
    return b.select(b.compare("eq", x, at), b.const(-_INFINITY, x.dtype, x.lanes), math.nan)
