"""Initial values of weights, drawn on the host from seeded streams."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from gradloom.compiler.types import DType, as_dtype
from gradloom.constructors import Constructed
from gradloom.lookup import ClassCatalogue
from gradloom.random_seed import new_stream

AnyDType = DType | str | type | np.dtype
Mode = Literal["fan_in", "fan_out", "fan_avg"]
Distribution = Literal["truncated_normal", "untruncated_normal", "uniform"]


class Initializer(Constructed, ABC):
    """Makes the first value of a weight of a given shape."""

    @abstractmethod
    def __call__(self, shape: Sequence[int], dtype: AnyDType = "float32") -> np.ndarray:
        """Return an array of `shape`. Equal calls return equal values: a seeded initializer keeps its stream."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this initializer again."""
        return {}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


class Constant(Initializer):
    """Every element is `value`."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Sequence[int], dtype: AnyDType = "float32") -> np.ndarray:
        return np.full(tuple(shape), self.value, as_dtype(dtype).numpy)

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value}


class Zeros(Initializer):
    """Every element is 0."""

    def __call__(self, shape: Sequence[int], dtype: AnyDType = "float32") -> np.ndarray:
        return np.zeros(tuple(shape), as_dtype(dtype).numpy)


class Ones(Initializer):
    """Every element is 1."""

    def __call__(self, shape: Sequence[int], dtype: AnyDType = "float32") -> np.ndarray:
        return np.ones(tuple(shape), as_dtype(dtype).numpy)


class RandomInitializer(Initializer):
    """Draws from a stream that is fixed when the initializer is made.

    With `seed=None` the stream is the next one of `gradloom.utils.set_random_seed`; as in Keras, calling one
    initializer twice gives the same values, and two initializers give independent ones.
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and (not isinstance(seed, (int, np.integer)) or seed < 0):
            raise ValueError(f"Expected the seed as a non-negative integer or None. Received: seed={seed!r}")
        self.seed = seed
        self._stream = new_stream(seed)

    def __call__(self, shape: Sequence[int], dtype: AnyDType = "float32") -> np.ndarray:
        dtype = as_dtype(dtype)
        if not dtype.is_float:
            raise ValueError(f"{self!r}: Expected a floating-point dtype. Received: {dtype.numpy_name}")
        return np.asarray(self.draw(self._stream.generator(), tuple(shape), dtype.numpy), dtype.numpy)

    @abstractmethod
    def draw(self, generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return random values from the generator."""


DEFERRED = (Constant, Zeros, Ones, RandomInitializer)
"""Initializers whose values may be made when they are first asked for: nothing else depends on when that is."""


class RandomNormal(RandomInitializer):
    """Normally distributed around `mean`."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean = mean
        self.stddev = stddev

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return _affine(generator.standard_normal(shape, dtype), self.stddev, self.mean)

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}


class TruncatedNormal(RandomInitializer):
    """Normally distributed, with values further than two `stddev` from `mean` drawn again."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean = mean
        self.stddev = stddev

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return _affine(_truncated_normal(generator, shape, dtype), self.stddev, self.mean)

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}


class RandomUniform(RandomInitializer):
    """Uniformly distributed between `minval` and `maxval`."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.minval = minval
        self.maxval = maxval

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return _affine(generator.random(shape, dtype), self.maxval - self.minval, self.minval)

    def get_config(self) -> dict[str, Any]:
        return {"minval": self.minval, "maxval": self.maxval, "seed": self.seed}


class VarianceScaling(RandomInitializer):
    """Zero mean and variance `scale / n`, where n is what `mode` counts: inputs, outputs, or their average.

    A kernel of shape (…, inputs, outputs) has fan_in = inputs · receptive field, fan_out = outputs · receptive field.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: Mode = "fan_in",
        distribution: Distribution = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        if scale <= 0:
            raise ValueError(f"Expected scale > 0. Received: scale={scale}")
        if mode not in get_args(Mode):
            raise ValueError(f"Expected mode as one of {', '.join(get_args(Mode))}. Received: mode={mode!r}")
        if distribution not in get_args(Distribution):
            known = ", ".join(get_args(Distribution))
            raise ValueError(f"Expected distribution as one of {known}. Received: distribution={distribution!r}")
        super().__init__(seed)
        self.scale = scale
        self.mode = mode
        self.distribution = distribution

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        fan_in, fan_out = compute_fans(shape)
        count = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        stddev = math.sqrt(self.scale / max(1.0, count))
        if self.distribution == "uniform":
            limit = math.sqrt(3.0) * stddev
            return _affine(generator.random(shape, dtype), 2 * limit, -limit)
        if self.distribution == "untruncated_normal":
            return _affine(generator.standard_normal(shape, dtype), stddev, 0.0)
        return _affine(_truncated_normal(generator, shape, dtype), stddev / _TRUNCATED_STDDEV, 0.0)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "mode": self.mode, "distribution": self.distribution, "seed": self.seed}


class _NamedScaling(VarianceScaling):
    """A variance scaling whose settings have a name: only the seed is left to choose."""

    settings: ClassVar[tuple[float, Mode, Distribution]]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(*self.settings, seed=seed)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


class GlorotUniform(_NamedScaling):
    """Uniform in ±√(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""

    settings = (1.0, "fan_avg", "uniform")


class GlorotNormal(_NamedScaling):
    """Truncated normal of variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010)."""

    settings = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_NamedScaling):
    """Uniform in ±√(6 / fan_in) (He et al. 2015)."""

    settings = (2.0, "fan_in", "uniform")


class HeNormal(_NamedScaling):
    """Truncated normal of variance 2 / fan_in (He et al. 2015)."""

    settings = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_NamedScaling):
    """Uniform in ±√(3 / fan_in) (LeCun et al. 1998)."""

    settings = (1.0, "fan_in", "uniform")


class LecunNormal(_NamedScaling):
    """Truncated normal of variance 1 / fan_in (LeCun et al. 1998)."""

    settings = (1.0, "fan_in", "truncated_normal")


InitializerLike = str | Initializer | Callable[..., np.ndarray] | Mapping[str, Any] | type[Initializer]

_CATALOGUE: ClassCatalogue[Initializer] = ClassCatalogue(
    "initializer",
    Initializer,
    {
        "zeros": Zeros,
        "ones": Ones,
        "constant": Constant,
        "random_normal": RandomNormal,
        "random_uniform": RandomUniform,
        "truncated_normal": TruncatedNormal,
        "variance_scaling": VarianceScaling,
        "glorot_uniform": GlorotUniform,
        "glorot_normal": GlorotNormal,
        "he_uniform": HeUniform,
        "he_normal": HeNormal,
        "lecun_uniform": LecunUniform,
        "lecun_normal": LecunNormal,
        "normal": RandomNormal,
        "uniform": RandomUniform,
    },
    lambda function: function,
)


def get(identifier: InitializerLike) -> Callable[..., np.ndarray]:
    """Return the initializer of a name, a class, a `{"class_name", "config"}` mapping, or the callable itself.

    Raises `ValueError` naming the nearest known initializers for an unknown name.
    """
    return _CATALOGUE.get(identifier)


def serialize(initializer: Callable[..., np.ndarray]) -> Any:
    """Return what `get` turns into an equal initializer."""
    if isinstance(initializer, Initializer):
        return {"class_name": type(initializer).__name__, "config": initializer.get_config()}
    return initializer


def compute_fans(shape: Sequence[int]) -> tuple[float, float]:
    """Return (fan_in, fan_out) of a weight: kernels have shape (…receptive field, inputs, outputs)."""
    if len(shape) < 2:
        size = float(shape[0]) if shape else 1.0
        return size, size
    field = math.prod(shape[:-2])
    return float(shape[-2] * field), float(shape[-1] * field)


_TRUNCATED_STDDEV = 0.87962566103423978
"""Standard deviation of the standard normal distribution cut off at ±2."""


def _affine(array: np.ndarray, scale: float, offset: float) -> np.ndarray:
    """Scale and shift in place: large kernels are drawn without a second array."""
    array = np.asarray(array)
    array *= array.dtype.type(scale)
    array += array.dtype.type(offset)
    return array


def _truncated_normal(generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    values = np.asarray(generator.standard_normal(shape, dtype))
    flat = values.reshape(-1)
    outside = np.flatnonzero(np.abs(flat) > 2)
    while outside.size:
        flat[outside] = generator.standard_normal(outside.size, dtype)
        outside = outside[np.abs(flat[outside]) > 2]
    return values
