"""`check_numerics`: the first NaN or infinity in a compiled step is named, its step taken back, all else the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradloom as gl
import networks
from gradloom import layers, ops, step_graphs
from gradloom.compiler.errors import NumericsError
from gradloom.compiler.types import F32, I32, OPEN, TensorType
from gradloom.execution import CompiledGraph
from gradloom.numerics import forgets


def line_of(text: str) -> str:
    """The `file:line` of the only line of this file that ends with a text."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.endswith(text)]
    return f"{__file__}:{number}"


class Shares(layers.Layer):
    def call(self, x: Any) -> Any:
        total = ops.sum(x, axis=-1, keepdims=True)
        return x / total


class Function(layers.Layer):
    """Applies a function, after a dense layer of zeros so that gradients pass through it."""

    def __init__(self, f: Callable[[Any], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.f = f

    def call(self, x: Any) -> Any:
        return self.f(x)


def data(samples: int = 640, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(0.1, 1.0, (samples, 4)).astype(np.float32), rng.integers(0, classes, samples)


def classifier(*first: layers.Layer, width: int = 8, **options: Any) -> gl.Sequential:
    gl.utils.set_random_seed(3)
    model = gl.Sequential(
        [gl.Input((4,)), *first, layers.Dense(width, activation="relu"), layers.Dense(3, activation="softmax")]
    )
    options = {"optimizer": "adam", "check_numerics": True} | options
    model.compile(loss="sparse_categorical_crossentropy", **options)
    return model


def weights_of(model: gl.Model) -> list[np.ndarray]:
    """Copies of all that training changes: weights, and the optimizer's state."""
    assert model.optimizer is not None
    return [*model.get_weights(), *(variable.numpy() for variable in model.optimizer.variables)]


def assert_equal(got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = gl.get_num_threads()
    gl.set_num_threads(request.param)
    yield request.param
    gl.set_num_threads(before)


def test_a_division_by_zero_is_named_and_its_step_taken_back(threads: int) -> None:
    x, y = data()
    x[16 * 30 + 5] = 0
    model = classifier(Shares(name="shares"), width=256, metrics=["accuracy"])
    with pytest.raises(NumericsError) as caught:
        model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    error = caught.value
    assert (error.kind, error.op, error.layer, error.gradient_of) == ("NaN", "divide", "shares", "")
    assert (error.batch, error.epoch, error.index) == (31, 1, (5, 0))
    assert error.source == line_of("return x / total")
    assert str(error) == (
        "Batch 31 of epoch 1: Expected finite numbers in step 'train'. Received: NaN from divide of 0 and 0 at [5, 0], "
        f"layer 'shares'  [{error.source}]. Weights and states are those before it"
    )
    assert isinstance(error, FloatingPointError)

    other = classifier(Shares(name="shares"), width=256, metrics=["accuracy"], check_numerics=False)
    other.fit(x, y, batch_size=16, steps_per_epoch=30, shuffle=False, verbose=0)
    assert_equal(weights_of(model), weights_of(other))
    # The model goes on as if the step had never been tried.
    x[16 * 30 + 5] = 1
    for each in (model, other):
        each.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    assert_equal(weights_of(model), weights_of(other))
    assert model.evaluate(x, y, verbose=0) == other.evaluate(x, y, verbose=0)


def test_a_validation_is_named_with_the_epoch_before_it() -> None:
    x, y = data(80)
    wrong = x.copy()
    wrong[40] = 0
    model = classifier(Shares(name="shares"))
    with pytest.raises(
        NumericsError, match="^Validation after epoch 2: Batch 3: Expected finite numbers in step 'test"
    ):
        model.fit(x, y, batch_size=16, epochs=3, validation_data=(wrong, y), validation_freq=2, verbose=0)


def test_the_epoch_and_the_row_are_those_that_are_shuffled_to() -> None:
    x, y = data(80)
    model = classifier(layers.Rescaling(1.0))

    class Spoil(gl.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 4:
                model.layers[-1].kernel.assign(np.full((8, 3), np.nan, np.float32))

    with pytest.raises(NumericsError) as caught:
        model.fit(x, y, batch_size=16, epochs=6, initial_epoch=3, callbacks=[Spoil()], verbose=0)
    assert (caught.value.batch, caught.value.epoch) == (1, 5)
    assert (caught.value.op, caught.value.name) == ("input", f"{model.layers[-1].name}/kernel")
    assert str(caught.value).startswith("Batch 1 of epoch 5: ") and "NaN in weight" in str(caught.value)

    x[37, 2] = np.inf
    model = classifier()
    with pytest.raises(NumericsError, match=r"Received: Inf in input 'x' at \[37, 2\]") as caught:
        model.fit(x, y, batch_size=16, verbose=0)
    assert (caught.value.kind, caught.value.index) == ("Inf", (37, 2))
    x[37, 2] = 1
    with pytest.raises(NumericsError, match=r"NaN in input 'sample_weight' at \[70\]"):
        model.fit(x, y, sample_weight=np.where(np.arange(80) == 70, np.nan, 1), verbose=0)


def test_the_last_smaller_batch_counts_on() -> None:
    x, y = data(40)
    x[39] = 0
    for run in (classifier(Shares()).fit, classifier(Shares()).evaluate):
        with pytest.raises(NumericsError) as caught:
            run(x, y, batch_size=16, verbose=0, **({"shuffle": False} if run.__name__ == "fit" else {}))
        assert (caught.value.batch, caught.value.index) == (3, (7, 0))


def test_batch_hooks_see_the_steps_before() -> None:
    x, y = data(160)
    x[100] = 0
    model = classifier(Shares())
    seen: list[int] = []

    class Listener(gl.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(batch)

    with pytest.raises(NumericsError) as caught:
        model.fit(x, y, batch_size=16, callbacks=[Listener()], shuffle=False, verbose=0)
    assert caught.value.batch == 7 and seen == [0, 1, 2, 3, 4, 5]
    with pytest.raises(NumericsError, match="^Expected finite numbers in step 'train'"):
        model.train_on_batch(x[96:112], y[96:112])


def test_the_logarithm_of_a_negative_number_in_evaluation_and_prediction(threads: int) -> None:
    x, y = data(100)
    x[70, 1] = -1
    model = classifier(Function(lambda x: ops.log(x), name="logarithm"))
    before = weights_of(model)
    with pytest.raises(NumericsError) as caught:
        model.evaluate(x, y, batch_size=32, verbose=0)
    assert (caught.value.op, caught.value.layer, caught.value.batch) == ("log", "logarithm", 3)
    assert caught.value.source == line_of('name="logarithm"))')
    with pytest.raises(NumericsError) as caught:
        model.predict(x, batch_size=32)
    assert (caught.value.op, caught.value.layer, caught.value.samples) == ("log", "logarithm", (64, 95))
    assert str(caught.value).startswith("Samples 64 to 95: ") and "before it" not in str(caught.value)
    assert model.predict(x[:64]).shape == (64, 3)
    for _ in range(2):  # Twice: the second call goes past all checks of the data.
        model.predict_on_batch(x[:64])
    with pytest.raises(NumericsError, match="Samples 0 to 63: "):
        model.predict_on_batch(x[10:74])
    assert_equal(weights_of(model), before)


def test_what_only_pads_a_batch_does_not_count() -> None:
    x, _ = data(35)
    model = classifier(Shares())
    assert np.isfinite(model.predict(x, batch_size=32)).all()  # padded samples are zeros, their shares NaN


def test_an_overflow_in_a_loss() -> None:
    x, _ = data()

    def steep(y: Any, prediction: Any) -> Any:
        return ops.exp(1e3 * prediction) - y

    model = gl.Sequential([gl.Input((4,)), layers.Dense(2, kernel_initializer="ones", name="only")])
    model.compile("sgd", steep, check_numerics=True)
    with pytest.raises(NumericsError) as caught:
        model.fit(x, x[:, :2], shuffle=False, verbose=0)
    assert (caught.value.kind, caught.value.op, caught.value.layer) == ("Inf", "exp", "loss")
    assert (caught.value.source, caught.value.batch) == (line_of("ops.exp(1e3 * prediction) - y"), 1)


def test_a_gradient_alone_names_the_forward_op(threads: int) -> None:
    x, y = data()
    dense = layers.Dense(4, kernel_initializer="zeros", name="zeros")
    model = classifier(dense, Function(lambda x: ops.sqrt(x), name="root"))
    before = model.get_weights()
    with pytest.raises(NumericsError) as caught:
        model.fit(x, y, verbose=0)
    assert (caught.value.op, caught.value.gradient_of, caught.value.layer) == ("divide", "sqrt", "root")
    assert caught.value.source == line_of('name="root"))')
    assert "], in the gradient of sqrt, layer 'root'" in str(caught.value)
    assert_equal(model.get_weights(), before)
    assert np.isfinite(model.evaluate(x, y, verbose=0)).all()


def test_an_overflow_in_the_optimizer() -> None:
    x, y = data()
    model = classifier(optimizer=gl.optimizers.SGD(3e38, momentum=0.9))
    before = weights_of(model)
    x *= 1e3
    with pytest.raises(NumericsError) as caught:
        model.fit(x, y, shuffle=False, verbose=0)
    assert (caught.value.layer, caught.value.batch) == ("sgd", 1)
    assert caught.value.source.startswith(__file__) and "Inf" in caught.value.kind
    after = weights_of(model)
    assert_equal(after[: len(before)], before)
    assert not any(slot.any() for slot in after[len(before) :])


def test_masks_of_infinities_are_no_error_until_they_make_a_nan() -> None:
    """Attention's way: what is masked gets the weight 0, unless everything is."""

    def attention(x: Any) -> Any:
        return x * ops.softmax(ops.where(x > 0.2, x, -np.inf))

    x, y = data()
    x[:, 0] = 0.9
    model = classifier(Function(attention, name="attention"))
    model.fit(x, y, verbose=0)
    model.evaluate(x, y, verbose=0)
    model.predict(x)
    x[17] = 0.1
    with pytest.raises(NumericsError) as caught:
        model.fit(x, y, verbose=0, shuffle=False)
    assert (caught.value.kind, caught.value.op, caught.value.layer) == ("NaN", "subtract", "attention")
    assert "of -inf and -inf" in str(caught.value)


def test_infinities_by_intention_are_predicted() -> None:
    x, _ = data(64)
    mask = np.where(np.arange(400 * 4).reshape(400, 4) % 3, 0, -np.inf).astype(np.float32)
    model = gl.Sequential([gl.Input((4,)), Function(lambda x: ops.where(x > 0.5, x, -np.inf) + mask[7])])
    model.compile(check_numerics=True)
    assert np.isneginf(model.predict(x)).any()
    large = gl.function(lambda x: x + mask, check_numerics=True)  # an argument of the program, not a literal
    assert np.isneginf(large(np.zeros((400, 4), np.float32))).any()


def test_an_infinity_by_intention_may_not_become_the_loss() -> None:
    x, y = data()
    model = gl.Sequential([gl.Input((4,)), layers.Dense(3), Function(lambda x: ops.where(x > 9, x, -np.inf))])
    model.compile("sgd", lambda y, p: -p[:, :1] + y, check_numerics=True)
    with pytest.raises(NumericsError, match="-Inf from constant"):
        model.fit(x, y.astype(np.float32), verbose=0)


def test_what_where_leaves_out_is_no_error() -> None:
    x, y = data()
    x[5] = 0
    model = classifier(Function(lambda x: ops.where(x > 0, ops.log(x), 0.0)))
    model.fit(x, y, verbose=0)
    model.predict(x)


@pytest.mark.parametrize(
    "remembered",
    [
        lambda last, x: ops.mean(ops.sqrt(x)),
        lambda last, x: ops.where(abs(last) < 1e9, ops.min(ops.sqrt(x)), 1.0),
        lambda last, x: ops.tanh(last) + ops.log(ops.maximum(ops.min(ops.sqrt(x)), 0.1)),
    ],
)
def test_a_state_that_forgets_is_looked_at_after_every_step(remembered: Callable[[Any, Any], Any]) -> None:
    """A NaN in the midst of a native call that the next step overwrites, and that reaches no sum and no weight."""

    class Remembers(layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.last = self.add_weight((), initializer="zeros", trainable=False, name="last")

        def call(self, x: Any) -> Any:
            self.last.assign(remembered(self.last, x))
            return ops.maximum(x, 0.0)

    x, y = data()
    x[16 * 20 + 3, 1] = -1
    model = classifier(Remembers(name="remembers"))
    with pytest.raises(NumericsError) as caught:
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    assert (caught.value.op, caught.value.layer, caught.value.batch) == ("sqrt", "remembers", 21)
    types = (("x", TensorType(F32, (OPEN, 4))), ("y", TensorType(I32, (OPEN,))))
    assert forgets(step_graphs.train_step(model, 16, types).graph)
    assert not forgets(classifier().train_graph(16))


def test_a_state_may_begin_with_an_infinity_and_keep_it() -> None:
    class Lowest(layers.Layer):
        def build(self, input_shape: Any) -> None:
            start = gl.initializers.Constant(np.inf)
            self.lowest = self.add_weight((4,), initializer=start, trainable=False, name="lowest")

        def call(self, x: Any) -> Any:
            high = ops.where(x > 0.5, x, np.inf)
            self.lowest.assign(ops.minimum(self.lowest, ops.min(high, axis=0)))
            return x

    x, y = data()
    x[:, 2] = 0.25
    layer = Lowest()
    classifier(layer).fit(x, y, verbose=0)
    assert np.isinf(layer.lowest.numpy()).tolist() == [False, False, True, False]


def test_functions() -> None:
    total = gl.Variable(np.float32(1), name="total")

    @gl.function
    def unchecked(x: Any) -> Any:
        return ops.log(x)

    def add(x: Any) -> Any:
        total.assign_add(ops.sum(x / total))
        return total * x

    checked = gl.function(add, check_numerics=True)
    assert np.isnan(unchecked(np.float32([-1]))).all()
    checked(np.float32([-1, 0]))
    assert float(total) == 0
    with pytest.raises(NumericsError) as caught:
        checked(np.float32([0, 2]))
    assert (caught.value.op, caught.value.source) == ("divide", line_of("ops.sum(x / total))"))
    assert float(total) == 0
    total.assign(2)
    assert gl.function(ops.exp, check_numerics=True)(0.0) == 1
    with pytest.raises(NumericsError, match=r"step 'add'. Received: NaN in input 'x' at \[1\]"):
        checked(np.float32([2, np.nan]))


@pytest.mark.parametrize("make", [networks.convolutional, networks.branched], ids=lambda make: make.__name__)
def test_a_nan_in_any_weight_is_found_where_it_is(make: Callable[[], gl.Model]) -> None:
    """Whatever layout the compiler chose for the weight, whatever it folded it into."""
    model = make()
    rng = np.random.default_rng(1)
    model.compile("sgd", "mse", check_numerics=True)
    x = [rng.uniform(0.1, 1, (4, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]
    y = [rng.uniform(0.1, 1, (4, *tensor.shape[1:])).astype(np.float32) for tensor in model.call_graph.outputs]
    given = (x, y) if len(x) > 1 else (x[0], y[0])
    model.evaluate(*given, verbose=0)
    for variable in model.trainable_variables:
        if variable.ndim < 2:
            continue
        before = variable.numpy()
        at = tuple(int(rng.integers(size)) for size in variable.shape)
        spoilt = before.copy()
        spoilt[at] = np.nan
        variable.assign(spoilt)
        for run in (lambda: model.fit(*given, verbose=0), lambda: model.evaluate(*given, verbose=0)):
            with pytest.raises(NumericsError) as caught:
                run()
            assert (caught.value.name, caught.value.index) == (variable.path, at)
        with pytest.raises(NumericsError) as caught:
            model.predict(given[0])
        assert (caught.value.name, caught.value.index) == (variable.path, at)
        np.testing.assert_array_equal(variable.value, spoilt)
        variable.assign(before)
    model.fit(*given, verbose=0)


@pytest.mark.parametrize("mode", ["train", "test", "predict"])
def test_the_program_is_the_same_with_and_without(mode: str) -> None:
    model = networks.mlp()
    types = (("x", TensorType(F32, (OPEN, 28, 28))), ("y", TensorType(I32, (OPEN,))))
    model.fit(np.zeros((2, 28, 28), np.float32), np.zeros(2, np.int32), verbose=0)

    def build() -> Any:
        if mode == "predict":
            return step_graphs.predict_step(model, [TensorType(F32, (8, 28, 28))])
        return getattr(step_graphs, f"{mode}_step")(model, 8, types)

    plain, checked = (CompiledGraph(build(), check_numerics=check).program for check in (False, True))
    assert plain.schedule == checked.schedule and plain.buffers == checked.buffers
    assert plain.code == checked.code and plain == checked


def test_training_is_the_same_with_and_without() -> None:
    x, y = data()
    histories, weights = [], []
    for check in (False, True):
        gl.utils.set_random_seed(4)
        model = classifier(layers.Dropout(0.5), check_numerics=check)
        histories.append(model.fit(x, y, epochs=2, verbose=0, validation_split=0.2).history)
        weights.append(weights_of(model))
    assert histories[0] == histories[1]
    assert_equal(*weights)


def test_a_copy_checks_as_well() -> None:
    import copy

    x, y = data()
    x[5] = 0
    with pytest.raises(NumericsError):
        copy.deepcopy(classifier(Shares())).fit(x, y, verbose=0)


def test_a_function_that_is_compiled_already_is_checked() -> None:
    def f(x: Any) -> Any:
        return ops.sum(ops.log(x))

    x = np.zeros(3, np.float32)
    for compiled in (gl.function(f), gl.grad(f)):
        compiled(x)  # a program without a check is kept
        with pytest.raises(NumericsError, match="-?Inf from"):
            gl.function(compiled, check_numerics=True)(x)
        assert not np.isfinite(compiled(x)).all()


@pytest.mark.parametrize("wanted", ["yes", None, 2])
def test_what_is_no_truth_value_is_refused(wanted: Any) -> None:
    with pytest.raises(ValueError, match=f"check_numerics as True or False. Received: check_numerics={wanted!r}$"):
        classifier(check_numerics=wanted)
