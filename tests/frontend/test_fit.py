"""fit, evaluate and the batch methods, against a network written in NumPy."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
from numpy_mlp import Adam, Mlp, Sgd

import gradloom as gl
from gradloom import step_graphs
from gradloom.training_setup import TrainingSetup

SAMPLES, FEATURES, CLASSES = 77, 12, 5  # 77 = 2 batches of 32 and one of 13


def data(seed: int = 0, samples: int = SAMPLES) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, samples)
    x = rng.standard_normal((samples, FEATURES)) + np.eye(CLASSES, FEATURES)[y] * 2
    return x.astype(np.float32), y


def new_model(optimizer: Any = "sgd", **options: Any) -> gl.Sequential:
    model = gl.Sequential(
        [
            gl.Input((FEATURES,)),
            gl.layers.Dense(16, activation="relu"),
            gl.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    arguments = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]} | options
    model.compile(optimizer, **arguments)
    return model


def oracle(model: gl.Sequential) -> Mlp:
    return Mlp(model.get_weights())


def assert_same_weights(model: gl.Sequential, expected: list[np.ndarray], tolerance: float = 2e-4) -> None:
    for weight, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(weight, wanted, rtol=tolerance, atol=tolerance)


def assert_equal_bits(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    assert [weight.tobytes() for weight in one] == [weight.tobytes() for weight in other]


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("optimizer", "reference"),
    [
        (lambda: gl.optimizers.SGD(0.1), lambda: Sgd(0.1)),
        (lambda: gl.optimizers.SGD(0.01, momentum=0.9), lambda: Sgd(0.01, 0.9)),
        (lambda: gl.optimizers.SGD(0.01, momentum=0.9, nesterov=True), lambda: Sgd(0.01, 0.9, True)),
        (lambda: gl.optimizers.Adam(0.01), lambda: Adam(0.01)),
    ],
    ids=["sgd", "momentum", "nesterov", "adam"],
)
@pytest.mark.parametrize("batch_size", [1, 32, 100])
def test_training_follows_numpy(optimizer: Any, reference: Any, batch_size: int) -> None:
    (x, y), model = data(), new_model(optimizer())
    expected = oracle(model)
    expected.fit(x, y, reference(), batch_size, epochs=3)
    history = model.fit(x, y, batch_size=batch_size, epochs=3, shuffle=False, verbose=0)
    assert_same_weights(model, expected.weights, 2e-3)
    np.testing.assert_allclose(history.history["loss"], expected.losses, rtol=1e-3)
    np.testing.assert_allclose(history.history["accuracy"], expected.accuracies, atol=1.5 / SAMPLES)


def test_history_has_the_names_of_keras() -> None:
    (x, y), model = data(), new_model()
    history = model.fit(x, y, epochs=4, initial_epoch=1, validation_data=data(1), verbose=0)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert history.epoch == [1, 2, 3]
    assert all(len(values) == 3 for values in history.history.values())
    assert history.model is model and history.params["steps"] == 3


def test_sample_weights_weigh() -> None:
    (x, y), model = data(), new_model(gl.optimizers.SGD(0.1))
    weight = np.random.default_rng(3).random(SAMPLES)
    expected = oracle(model)
    expected.fit(x, y, Sgd(0.1), 32, 2, weight)
    history = model.fit(x, y, epochs=2, shuffle=False, sample_weight=weight, verbose=0)
    assert_same_weights(model, expected.weights)
    np.testing.assert_allclose(history.history["loss"], expected.losses, rtol=1e-4)
    assert model.evaluate(x, y, sample_weight=weight, verbose=0)[0] == pytest.approx(  # type: ignore[index]
        expected.figures(x, y, weight)[0], rel=1e-4
    )


def test_class_weights_are_sample_weights() -> None:
    (x, y), model = data(), new_model(gl.optimizers.SGD(0.1))
    expected = oracle(model)
    expected.fit(x, y, Sgd(0.1), 32, 2, np.where(y == 2, 3.0, np.where(y == 0, 0.5, 1.0)))
    model.fit(x, y, epochs=2, shuffle=False, class_weight={0: 0.5, 2: 3.0}, verbose=0)
    assert_same_weights(model, expected.weights)


def test_weighted_metrics_heed_sample_weights_and_others_do_not() -> None:
    (x, y) = data()
    model = new_model(weighted_metrics=["sparse_categorical_accuracy"])
    right = model.predict(x).argmax(axis=1) == y
    weight = np.random.default_rng(0).random(SAMPLES)
    logs = model.evaluate(x, y, sample_weight=weight, return_dict=True, verbose=0)
    assert isinstance(logs, dict)
    assert logs["accuracy"] == pytest.approx(right.mean())
    assert logs["sparse_categorical_accuracy"] == pytest.approx((right * weight).sum() / weight.sum(), rel=1e-5)


def test_validation_split_is_the_tail_and_is_not_trained_on() -> None:
    x, y = data()
    cut = int(SAMPLES * 0.75)
    model, other = new_model(gl.optimizers.SGD(0.1)), new_model(gl.optimizers.SGD(0.1))
    other.set_weights(model.get_weights())
    history = model.fit(x, y, validation_split=0.25, shuffle=False, verbose=0)
    other.fit(x[:cut], y[:cut], shuffle=False, verbose=0)
    assert_equal_bits(model.get_weights(), other.get_weights())
    loss, accuracy = oracle(model).figures(x[cut:], y[cut:])
    assert history.history["val_loss"] == [pytest.approx(loss, rel=1e-4)]
    assert history.history["val_accuracy"] == [pytest.approx(accuracy)]


def test_validation_comes_when_it_is_due() -> None:
    (x, y), model = data(), new_model()
    for frequency, count in ((2, 2), ([1, 4], 2), (1, 5)):
        history = model.fit(x, y, epochs=5, validation_data=(x, y), validation_freq=frequency, verbose=0)
        assert len(history.history["val_loss"]) == count


@pytest.mark.parametrize("samples", [1, 31, 32, 33, 77])
def test_evaluate_counts_no_padding(samples: int) -> None:
    (x, y), model = data(samples=samples), new_model()
    loss, accuracy = oracle(model).figures(x, y)
    assert model.evaluate(x, y, verbose=0) == [pytest.approx(loss, rel=1e-4), pytest.approx(accuracy)]
    assert model.test_on_batch(x, y) == [pytest.approx(loss, rel=1e-4), pytest.approx(accuracy)]
    assert model.evaluate(x, y, verbose=0, return_dict=True) == {
        "loss": pytest.approx(loss, rel=1e-4),
        "accuracy": pytest.approx(accuracy),
    }


def test_without_metrics_evaluate_returns_the_loss_alone() -> None:
    (x, y), model = data(), new_model(metrics=None)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(oracle(model).figures(x, y)[0], rel=1e-4)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_evaluate_with_other_reductions(reduction: str) -> None:
    """Keras's figure is the mean of the batches' losses, weighted by their numbers of samples."""
    x, y = data()
    loss = gl.losses.SparseCategoricalCrossentropy(reduction=reduction)
    model = new_model(loss=loss, metrics=None)
    batches = [(x[start : start + 32], y[start : start + 32]) for start in range(0, SAMPLES, 32)]
    factors = [len(b) if reduction == "sum" else 1 for _, b in batches]
    values = [oracle(model).figures(*batch)[0] * factor for batch, factor in zip(batches, factors, strict=True)]
    expected = sum(value * len(b) for value, (_, b) in zip(values, batches, strict=True)) / SAMPLES
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-4)


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    x, y = data()
    results = []
    for seed in (7, 7, 8):
        gl.utils.set_random_seed(seed)
        model = new_model("adam")
        model.fit(x, y, epochs=2, verbose=0)
        results.append(model.get_weights())
    assert_equal_bits(results[0], results[1])
    assert results[0][0].tobytes() != results[2][0].tobytes()


def test_one_thread_and_two_give_equal_bits() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((300, 28, 28), dtype=np.float32), rng.integers(0, 10, 300)
    results, before = [], gl.get_num_threads()
    try:
        for threads in (1, 2):
            gl.set_num_threads(threads)
            gl.utils.set_random_seed(0)
            model = gl.Sequential([gl.layers.Flatten(), gl.layers.Dense(128, "relu"), gl.layers.Dense(10, "softmax")])
            model.compile("adam", "sparse_categorical_crossentropy")
            model.fit(x, y, verbose=0)
            results.append([*model.get_weights(), model.predict(x)])
    finally:
        gl.set_num_threads(before)
    assert_equal_bits(*results)


def test_shuffling_is_another_order_each_epoch_over_all_samples() -> None:
    """With a learning rate of 0 every epoch's mean loss is that of all samples, in whatever order."""
    (x, y), model = data(), new_model(gl.optimizers.SGD(0.0))
    seen = []

    class Watch(gl.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 0:
                seen.append(logs["loss"])

    history = model.fit(x, y, epochs=3, callbacks=[Watch()], verbose=0)
    np.testing.assert_allclose(history.history["loss"], oracle(model).figures(x, y)[0], rtol=1e-4)
    assert len(set(seen)) == 3


@pytest.mark.parametrize("kind", ["float64", ">f4", "strided", "fortran", "read-only", "list"])
def test_data_of_any_form_trains_alike(kind: str) -> None:
    x, y = data()
    x = x.round(2)
    given: Any = {
        "float64": x.astype(np.float64),
        ">f4": x.astype(">f4"),
        "strided": np.repeat(x, 2, axis=1)[:, ::2],
        "fortran": np.asfortranarray(x),
        "read-only": x.copy(),
        "list": x.tolist(),
    }[kind]
    if kind == "read-only":
        given.flags.writeable = False
    untouched = np.array(given)
    model, other = new_model(), new_model()
    other.set_weights(model.get_weights())
    model.fit(given, y.astype(">i8"), shuffle=False, verbose=0)
    other.fit(x, y[:, None], shuffle=False, verbose=0)
    assert_equal_bits(model.get_weights(), other.get_weights())
    np.testing.assert_array_equal(untouched, given)


def test_bytes_are_converted_by_the_program() -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, FEATURES)).astype(np.uint8)
    y = np.arange(40) % CLASSES
    model, other = new_model(gl.optimizers.SGD(1e-4)), new_model(gl.optimizers.SGD(1e-4))
    other.set_weights(model.get_weights())
    model.fit(x, y.astype(np.uint8), shuffle=False, verbose=0)
    other.fit(x.astype(np.float32), y, shuffle=False, verbose=0)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert "u8[?,12] = input" in str(model.train_graph(32, "uint8"))


def test_train_on_batch_is_one_step() -> None:
    (x, y), model = data(samples=20), new_model(gl.optimizers.SGD(0.1))
    expected = oracle(model)
    figures = expected.figures(x, y)
    expected.fit(x, y, Sgd(0.1), 20, 1)
    assert model.train_on_batch(x, y) == [pytest.approx(figures[0], rel=1e-4), pytest.approx(figures[1])]
    assert_same_weights(model, expected.weights)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert isinstance(logs, dict) and logs["loss"] == pytest.approx(expected.figures(x, y)[0], rel=1e-4)


def test_steps_per_epoch_ends_an_epoch_early() -> None:
    (x, y), model = data(), new_model(gl.optimizers.SGD(0.1))
    expected = oracle(model)
    expected.fit(x[:64], y[:64], Sgd(0.1), 32, 1)
    model.fit(x, y, shuffle=False, steps_per_epoch=2, verbose=0)
    assert_same_weights(model, expected.weights)


def test_other_losses_train() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5]) + 3
    model = gl.Sequential([gl.Input((3,)), gl.layers.Dense(1)])
    model.compile(gl.optimizers.SGD(0.1), "mse", metrics=["mae"])
    history = model.fit(x, y, epochs=60, verbose=0)
    assert history.history["loss"][-1] < 1e-3 < history.history["loss"][0]
    np.testing.assert_allclose(model.get_weights()[0][:, 0], [1, -2, 0.5], atol=0.02)

    one_hot = gl.Sequential([gl.Input((3,)), gl.layers.Dense(2)])
    one_hot.compile("adam", gl.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    labels = np.eye(2)[(y > 3).astype(int)]
    history = one_hot.fit(x, labels, epochs=100, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]

    binary = gl.Sequential([gl.Input((3,)), gl.layers.Dense(1, activation="sigmoid")])
    binary.compile(gl.optimizers.Adam(0.1), "binary_crossentropy", metrics=["accuracy"])
    history = binary.fit(x, y > 3, epochs=20, verbose=0)
    assert history.history["accuracy"][-1] > 0.9

    def power(y_true: Any, y_pred: Any) -> Any:
        return gl.ops.mean(gl.ops.square(y_true - y_pred), axis=-1)

    model.compile("sgd", power, metrics=[power])
    logs = model.evaluate(x, y[:, None], verbose=0, return_dict=True)
    assert isinstance(logs, dict) and logs["power"] == pytest.approx(logs["loss"], rel=1e-5)


def test_frozen_layers_stay_and_thaw_without_a_new_compile() -> None:
    (x, y), model = data(), new_model()
    first = model.layers[0]
    first.trainable = False
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    after = model.get_weights()
    assert_equal_bits(before[:2], after[:2])
    assert before[2].tobytes() != after[2].tobytes()
    first.trainable = True
    model.fit(x, y, verbose=0)
    assert model.get_weights()[0].tobytes() != after[0].tobytes()


def test_a_second_fit_and_a_new_learning_rate_compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (x, y), model = data(), new_model(gl.optimizers.SGD(0.1))
    model.fit(x, y, validation_data=(x, y), verbose=0)
    from gradloom import execution

    def refuse(*arguments: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(execution, "compiled_program", refuse)
    expected = oracle(model)
    expected.fit(x, y, Sgd(0.01), 32, 1)
    assert model.optimizer is not None
    model.optimizer.learning_rate = 0.01
    model.fit(x, y, shuffle=False, validation_data=(x, y), verbose=0)
    assert_same_weights(model, expected.weights)


def test_state_is_versioned() -> None:
    (x, y), model = data(), new_model()
    versions = [variable.version for variable in model.weights]
    model.fit(x, y, verbose=0)
    assert all(variable.version > old for variable, old in zip(model.weights, versions, strict=True))
    versions = [variable.version for variable in model.weights]
    model.predict(x)
    model.evaluate(x, y, verbose=0)
    assert [variable.version for variable in model.weights] == versions


def test_threads_predict_with_one_model_at_the_same_time() -> None:
    (x, _), model = data(samples=50), new_model()
    expected = [model.predict(x * factor) for factor in range(8)]
    model.forget_programs()
    results: dict[int, list[np.ndarray]] = {}

    def work(factor: int) -> None:
        results[factor] = [model.predict(x * factor) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(factor,)) for factor in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for factor, predictions in results.items():
        assert len(predictions) == 10
        for prediction in predictions:
            np.testing.assert_array_equal(prediction, expected[factor])


def test_a_memory_limit_is_kept_before_anything_runs() -> None:
    (x, y), model = data(), new_model(memory_limit=100)
    before = model.get_weights()
    with pytest.raises(MemoryError, match="100"):
        model.fit(x, y, verbose=0)
    assert_equal_bits(before, model.get_weights())
    model.compile("sgd", "sparse_categorical_crossentropy", memory_limit=10_000_000)
    model.fit(x, y, verbose=0)
    model.compile("sgd", "sparse_categorical_crossentropy", memory_limit=100)
    with pytest.raises(MemoryError, match="100"):  # also what the cache of compiled code holds
        model.fit(x, y, verbose=0)


def test_a_batch_is_never_larger_than_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for build in (step_graphs.train_step, step_graphs.test_step):

        def recorded(model: Any, rows: int, types: Any, build: Any = build) -> Any:
            sizes.append(rows)
            return build(model, rows, types)

        recorded.__name__ = build.__name__
        monkeypatch.setattr(step_graphs, build.__name__, recorded)
    x, y = data()
    models = [new_model() for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    histories = [
        model.fit(x, y, batch_size=rows, validation_data=(x[:9], y[:9]), shuffle=False, verbose=0).history
        for model, rows in zip(models, (10**9, SAMPLES), strict=True)
    ]
    assert sizes == [SAMPLES, 9] * 2
    assert histories[0] == histories[1]


def test_graphs_of_each_step_leave_the_model_as_it_was() -> None:
    model = new_model("adam")
    before = model.get_weights()
    forward, train = model.forward_graph(8), model.train_graph(8)
    test, predict = model.test_graph(8), model.predict_graph(8, "uint8")
    for graph in (forward, train, test, predict):
        graph.verify()
        assert gl.compiler.parse(str(graph)) == graph
    assert [output.name for output in forward.outputs] == ["predictions", "loss"]
    assert all(output.donor is not None for output in train.outputs)
    assert {"dense/kernel", "adam/iterations", "loss/total", "accuracy/total"} <= {out.name for out in train.outputs}
    assert {"x", "y", "rows"} <= {value.op.attributes["label"] for value in train.inputs}
    assert not any(out.name.startswith("dense") for out in test.outputs)
    assert [str(output.value.type) for output in predict.outputs] == ["f32[8,5]"]
    assert_equal_bits(before, model.get_weights())


def test_logs_that_nobody_watches_are_read_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data()
    model = new_model("sgd")
    model.fit(x, y, verbose=0)
    read: list[int] = []
    logs = TrainingSetup.logs
    monkeypatch.setattr(TrainingSetup, "logs", lambda setup, samples: read.append(samples) or logs(setup, samples))
    model.fit(x, y, epochs=2, verbose=0)
    assert read == [len(x)] * 2


def test_a_step_is_built_without_looks_at_garbage() -> None:
    enabled: list[bool] = []

    def watched(inputs: Any) -> Any:
        enabled.append(gc.isenabled())
        return inputs * 2.0

    model = gl.Sequential([gl.Input((3,)), gl.layers.Lambda(watched)])
    enabled.clear()
    model.predict(np.zeros((2, 3), np.float32))
    assert enabled
    assert not any(enabled)
    assert gc.isenabled()
