"""Calls of one batch: the short way of arrays that fit a program as they are gives what the long way does."""

from __future__ import annotations

import numpy as np
import pytest

import gradloom as gl


def classifier() -> gl.Sequential:
    return gl.Sequential([gl.layers.Flatten(input_shape=(4, 3)), gl.layers.Dense(5, activation="softmax")])


def images(count: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((count, 4, 3)) * 9).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", ">f4"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_second_call_returns_what_predict_does(dtype: str, count: int) -> None:
    model, x = classifier(), images(count, dtype)
    expected = model.predict(x, batch_size=count)
    for _ in range(3):
        np.testing.assert_array_equal(model.predict_on_batch(x), expected)


def test_results_belong_to_the_caller() -> None:
    model = classifier()
    model.predict_on_batch(images(1))
    first = model.predict_on_batch(images(1))
    kept = first.copy()
    model.predict_on_batch(images(1, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_strided_and_read_only_arrays() -> None:
    model, x = classifier(), images(2)
    expected = model.predict_on_batch(x)
    wide = np.zeros((2, 8, 3), np.float32)
    wide[:, ::2] = x
    strided = wide[:, ::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(model.predict_on_batch(strided), expected)


def test_new_weights_are_seen() -> None:
    model, x = classifier(), images(1)
    before = [model.predict_on_batch(x) for _ in range(2)][-1]
    model.set_weights([2 * weight + 1 for weight in model.get_weights()])
    after = model.predict_on_batch(x)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, model.predict(x, batch_size=1))


def test_what_does_not_fit_is_still_refused() -> None:
    model = classifier()
    for _ in range(2):
        model.predict_on_batch(images(1))
    with pytest.raises(ValueError, match=r"\(None, 4, 3\)"):
        model.predict_on_batch(np.zeros((1, 4, 4), np.float32))


def test_calls_that_fit_check_nothing_else(monkeypatch) -> None:
    model, x = classifier(), images(1)
    expected = model.predict_on_batch(x)
    monkeypatch.setattr(model, "_features", None)
    np.testing.assert_array_equal(model.predict_on_batch(x), expected)


def test_several_outputs_keep_their_structure() -> None:
    inputs = gl.Input((3,))
    model = gl.Model(inputs, [gl.layers.Dense(2)(inputs), gl.layers.Dense(1)(inputs)])
    x = np.ones((2, 3), np.float32)
    for _ in range(2):
        assert [part.shape for part in model.predict_on_batch(x)] == [(2, 2), (2, 1)]
