"""Arrays of every kind as inputs: what is meant is computed, or an error says what was expected; they never change."""

from __future__ import annotations

import ctypes
import decimal
import random
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import workloads

import gradloom as gl
from gradloom import layers

SAMPLES = 12
FEATURES = 16

RNG = np.random.default_rng(0)
X = RNG.integers(0, 2, (SAMPLES, FEATURES)).astype(np.float32)
"""Zeros and ones: exact in every dtype that there is."""
Y = RNG.integers(0, workloads.CLASSES, SAMPLES)
WEIGHTS = RNG.integers(0, 2, SAMPLES).astype(np.float32)


class Subclass(np.ndarray):
    """An array that calls itself something else, and multiplies in its own way."""

    def __mul__(self, other: Any) -> Any:
        raise AssertionError("what users redefine is none of ours")


class Frame:
    """Something like a table of pandas: no array, but it gives one away."""

    def __init__(self, content: np.ndarray) -> None:
        self._content = content

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._content, dtype=dtype, copy=True)

    def __len__(self) -> int:
        return len(self._content)


class Interface:
    """Something that describes its memory as C libraries do."""

    def __init__(self, content: np.ndarray) -> None:
        self._content = content
        self.__array_interface__ = content.__array_interface__


def unaligned(content: np.ndarray) -> np.ndarray:
    memory = np.zeros(content.nbytes + 1, np.uint8)
    result = memory[1:].view(content.dtype).reshape(content.shape)
    result[...] = content
    assert not result.flags.aligned or content.dtype.itemsize == 1
    return result


def spread(content: np.ndarray, steps: int = 3) -> np.ndarray:
    """The same elements with others in between, along every axis."""
    wide = np.full([size * steps for size in content.shape], 7, content.dtype)
    view = wide[tuple(slice(1, None, steps) for _ in content.shape)]
    view[...] = content
    return view


def backwards(content: np.ndarray) -> np.ndarray:
    everything = (slice(None, None, -1),) * content.ndim
    return content[everything].copy()[everything]


def read_only(content: np.ndarray) -> np.ndarray:
    result = content.copy()
    result.flags.writeable = False
    return result


def repeated(content: np.ndarray) -> np.ndarray:
    """Strides of zero: one row in memory stands for all."""
    return np.broadcast_to(content[:1], content.shape)


def in_c(content: np.ndarray) -> Any:
    """An array of ctypes, which has a buffer and no `__array__`."""
    plain = np.ascontiguousarray(content)
    kind: Any = np.ctypeslib.as_ctypes_type(plain.dtype)
    for size in reversed(plain.shape):
        kind = kind * size
    result = kind()
    ctypes.memmove(result, plain.ctypes.data, plain.nbytes)
    return result


Form = Callable[[np.ndarray], Any]

FORMS: dict[str, Form] = {
    "plain": np.copy,
    "strided": spread,
    "columns of a wider array": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "negative strides": backwards,
    "fortran": lambda a: np.array(a, order="F"),
    "transposed": lambda a: a.T.copy().T,
    "read-only": read_only,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "big-endian, strided": lambda a: spread(a.astype(a.dtype.newbyteorder(">"))),
    "unaligned": unaligned,
    "unaligned, read-only, big-endian": lambda a: read_only(unaligned(a.astype(a.dtype.newbyteorder(">")))),
    "strides of zero": lambda a: repeated(np.ones_like(a)),
    "subclass": lambda a: a.copy().view(Subclass),
    "memory map": lambda a: a.copy().view(np.memmap),
    "masked, nothing masked": lambda a: np.ma.MaskedArray(a.copy()),
    "memoryview": lambda a: memoryview(np.ascontiguousarray(a)),
    "__array__": lambda a: Frame(a.copy()),
    "__array_interface__": lambda a: Interface(a.copy()),
    "ctypes": in_c,
    "nested lists": lambda a: a.tolist(),
    "list of arrays": lambda a: [row.copy() for row in a] if a.ndim > 1 else a.tolist(),
    "list of lists of scalars": lambda a: [list(row) for row in a] if a.ndim > 1 else list(a),
}

DTYPES = [
    *(np.dtype(name) for name in ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "f2", "f4", "f8")),
    np.dtype(ml_dtypes.bfloat16),
]


def bytes_of(leaf: Any) -> Any:
    """All that an input could be seen to have changed in."""
    if isinstance(leaf, np.ndarray):
        owner = leaf if leaf.base is None or not isinstance(leaf.base, np.ndarray) else leaf.base
        flags = leaf.flags
        state = (flags.writeable, flags.aligned, flags.c_contiguous, flags.f_contiguous)
        mask = leaf.mask.tobytes() if isinstance(leaf, np.ma.MaskedArray) else b""
        return type(leaf), leaf.dtype, leaf.shape, leaf.strides, state, owner.tobytes(), leaf.tobytes(), mask
    if isinstance(leaf, (Frame, Interface)):
        return bytes_of(leaf._content)
    if isinstance(leaf, (list, tuple)):
        return type(leaf), [bytes_of(part) for part in leaf]
    return (type(leaf), bytes(leaf)) if isinstance(leaf, (memoryview, ctypes.Array)) else repr(leaf)


class Trainer:
    """A model whose methods begin with the same weights each time, and a function: what is called with all inputs."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        gl.utils.set_random_seed(0)
        dense = layers.Dense(workloads.CLASSES, activation="softmax", input_shape=(FEATURES,))
        self._model = gl.Sequential([dense])
        self._model.compile(gl.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
        self._weights = self._model.get_weights()
        self._square = gl.function(lambda v: v * v)

    def result(self, method: str, *arguments: Any) -> Any:
        """What the method returns, and the weights that it leaves."""
        self.restart()
        returned = getattr(self, f"_{method}")(*arguments)
        return returned, self.weights()

    def restart(self) -> None:
        """Begin anew with the weights and the random numbers of the beginning."""
        gl.utils.set_random_seed(1)
        self._model.set_weights(self._weights)

    def weights(self) -> str:
        """A digest of the weights as they are."""
        return workloads.digest(self._model.get_weights())

    def _fit(self, x: Any, y: Any, weights: Any) -> Any:
        options = {"batch_size": self._batch_size, "epochs": 2, "verbose": 0}
        return self._model.fit(x, y, sample_weight=weights, **options).history

    def _fit_by_class(self, x: Any, y: Any, weights: Any) -> Any:
        class_weight = {0: 2.0, 3: 0.5}
        options = {"batch_size": self._batch_size, "verbose": 0}
        return self._model.fit(x, y, sample_weight=weights, class_weight=class_weight, **options).history

    def _validate(self, x: Any, y: Any, weights: Any) -> Any:
        options = {"batch_size": self._batch_size, "verbose": 0}
        return self._model.fit(X, Y, validation_data=(x, y, weights), **options).history

    def _train_on_batch(self, x: Any, y: Any, weights: Any) -> Any:
        return self._model.train_on_batch(x, y, sample_weight=weights)

    def _evaluate(self, x: Any, y: Any, weights: Any) -> Any:
        return self._model.evaluate(x, y, batch_size=self._batch_size, verbose=0, sample_weight=weights)

    def _test_on_batch(self, x: Any, y: Any, weights: Any) -> Any:
        return self._model.test_on_batch(x, y, sample_weight=weights)

    def _predict(self, x: Any) -> Any:
        return self._model.predict(x, batch_size=self._batch_size, verbose=0).tobytes()

    def _predict_on_batch(self, x: Any) -> Any:
        return self._model.predict_on_batch(x).tobytes()

    def _call(self, x: Any) -> Any:
        return self._model(x).tobytes()

    def _function(self, x: Any) -> Any:
        return np.asarray(self._square(x)).astype(np.float32).tobytes()


TRAINING = ["fit", "fit_by_class", "validate", "train_on_batch", "evaluate", "test_on_batch"]
PREDICTING = ["predict", "predict_on_batch", "call"]


@pytest.fixture(scope="module")
def trainer(times: Callable[[int, int], int]) -> Trainer:
    return Trainer(batch_size=times(SAMPLES, 5))


def plain(given: Any) -> np.ndarray:
    """An ordinary array of the same numbers: float32, or int64 for integers of Python's."""
    content = np.array(given)
    return np.array(content, np.int64 if content.dtype.kind in "iub" else np.float32, order="C")


def check(trainer: Trainer, method: str, *arguments: Any) -> None:
    """What comes of the arguments is what comes of plain arrays, and they stay as they are."""
    before = bytes_of(list(arguments))
    returned = trainer.result(method, *arguments)
    assert bytes_of(list(arguments)) == before, f"{method} changed what it was given"
    plain_x, *others = (plain(argument) for argument in arguments)
    assert returned == trainer.result(method, plain_x.astype(np.float32), *others), method


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_every_form(trainer: Trainer, form: str) -> None:
    make = FORMS[form]
    for method in PREDICTING:
        check(trainer, method, make(X))
    if form != "list of arrays":  # to a function that is several arrays
        check(trainer, "function", make(X))
    for method in TRAINING:
        check(trainer, method, make(X), Y, WEIGHTS)
        check(trainer, method, X, make(Y), WEIGHTS)
        check(trainer, method, X, Y, make(WEIGHTS))
        check(trainer, method, make(X), make(Y), make(WEIGHTS))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_of_every_dtype(trainer: Trainer, dtype: np.dtype) -> None:
    for method in [*PREDICTING, "function"]:
        check(trainer, method, X.astype(dtype))
    labels = (Y % 2 if dtype.kind == "b" else Y).astype(dtype)
    for method in TRAINING:
        check(trainer, method, X.astype(dtype), Y, WEIGHTS)
        check(trainer, method, X, labels, WEIGHTS)
        check(trainer, method, X, Y, WEIGHTS.astype(dtype))


def test_arrays_of_every_form_and_dtype(trainer: Trainer, times: Callable[[int, int], int]) -> None:
    draw = random.Random(0)
    # These know no bfloat16 or foreign order.
    forms = [form for name, form in FORMS.items() if name not in ("ctypes", "memoryview", "__array_interface__")]

    def drawn(content: np.ndarray) -> Any:
        return draw.choice(forms)(content.astype(draw.choice([dtype for dtype in DTYPES if dtype.kind != "b"])))

    for _ in range(times(2, 2000)):
        check(trainer, draw.choice(PREDICTING), drawn(X))
        check(trainer, draw.choice(TRAINING), drawn(X), drawn(Y), drawn(WEIGHTS))


def masked(content: np.ndarray) -> Any:
    return np.ma.masked_where(np.arange(content.size).reshape(content.shape) % 5 == 0, content)


def ragged(content: np.ndarray) -> Any:
    return [[0.0] * (1 + number % 2) for number in range(len(content))]


class Broken:
    """Something whose `__array__` fails."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise ValueError("Expected a table that is loaded. Received: a closed one")


BAD: dict[str, Form] = {
    "objects": lambda a: a.astype(object),
    "objects in foreign order": lambda a: spread(a.astype(object)),
    "strings": lambda a: a.astype("U8"),
    "bytes": lambda a: a.astype("S8"),
    "list of strings": lambda a: a.astype("U8").tolist(),
    "a string": lambda a: "data.npy",
    "complex": lambda a: a.astype(np.complex64),
    "list of complex numbers": lambda a: a.astype(np.complex64).tolist(),
    "long doubles": lambda a: a.astype(np.longdouble),
    "unsigned 64 bits": lambda a: a.astype(np.uint64),
    "dates": lambda a: a.astype(np.int64).astype("M8[s]"),
    "durations": lambda a: a.astype(np.int64).astype("m8[s]"),
    "records": lambda a: a.astype([("value", np.float32)]),
    "decimals": lambda a: [decimal.Decimal(number) for number in a.ravel().tolist()],
    "8-bit floats": lambda a: a.astype(ml_dtypes.float8_e5m2),
    "4-bit integers": lambda a: a.astype(ml_dtypes.int4),
    "some masked": masked,
    "no samples": lambda a: a[:0],
    "no samples, empty list": lambda a: [],
    "a number": lambda a: 1.0,
    "a number of NumPy's": lambda a: np.float32(1),
    "a 0-d array": lambda a: np.array(1, a.dtype),
    "one sample less": lambda a: a[:-1],
    "one axis more": lambda a: a[..., np.newaxis, np.newaxis],
    "ragged": ragged,
    "list with a hole": lambda a: [*a.tolist()[:-1], None],
    "a set": lambda a: {1.0, 2.0},
    "a generator": lambda a: (row for row in a),
    "an iterator": lambda a: iter(a.tolist()),
    "a function": lambda a: np.sum,
    "an object": lambda a: object(),
    "a type": lambda a: np.float32,
    "a broken table": lambda a: Broken(),
    "a dict": lambda a: {"other": a},
}

FINE_FOR_FUNCTIONS = {
    "no samples",
    "a number",
    "a number of NumPy's",
    "a 0-d array",
    "one sample less",
    "one axis more",
}
CONTAINERS_FOR_FUNCTIONS = {"no samples, empty list", "list with a hole", "a dict"}
FINE_ALONE = {"one sample less"}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_data_is_refused_and_changes_nothing(trainer: Trainer, kind: str) -> None:
    make = BAD[kind]
    calls = [(method, (make(X),)) for method in PREDICTING if kind not in FINE_ALONE]
    calls += [("function", (make(X),))] if kind not in FINE_FOR_FUNCTIONS | CONTAINERS_FOR_FUNCTIONS else []
    for method in TRAINING:
        calls += [(method, (make(X), Y, WEIGHTS)), (method, (X, make(Y), WEIGHTS)), (method, (X, Y, make(WEIGHTS)))]
    trainer.restart()
    for method, arguments in calls:
        before, weights = bytes_of(list(arguments)), trainer.weights()
        with pytest.raises((TypeError, ValueError), match="(?s)Expected.*Received") as caught:
            trainer.result(method, *arguments)
        assert not isinstance(caught.value, UnicodeError), (method, arguments)
        assert bytes_of(list(arguments)) == before, method
        assert trainer.weights() == weights, method
