"""Model: a network with the methods for training, testing and prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradloom import data_adapter, losses, step_graphs
from gradloom.callbacks import Callback, CallbackList, History, ProgbarLogger, TestLogger
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.types import F32, I32, OPEN, DType, TensorType, as_dtype
from gradloom.data_adapter import Dataset
from gradloom.epochs import Testing, Training
from gradloom.losses import Loss, LossLike
from gradloom.metrics import Metric, MetricLike
from gradloom.network import Network
from gradloom.optimizers import Optimizer, OptimizerLike
from gradloom.programs import StepPrograms
from gradloom.random_seed import new_stream
from gradloom.step_graphs import DataTypes
from gradloom.training_setup import TrainingSetup
from gradloom.variables import Variable

if TYPE_CHECKING:
    from gradloom.inspection import Inspection

DEFAULT_BATCH_SIZE = 32
Verbosity = int | str


class Model(Network):
    """A network that can be trained: the base of `Sequential`.

    `compile` says how, `fit` trains, `evaluate` tests; `predict` needs neither.
    """

    def __init__(self, name: str | None = None, trainable: bool = True) -> None:
        super().__init__(name=name, trainable=trainable)
        self.stop_training = False
        self._setup: TrainingSetup | None = None
        self._programs = StepPrograms(self)

    # What training is about.

    def compile(
        self,
        optimizer: OptimizerLike = "adam",
        loss: LossLike | None = None,
        metrics: Iterable[MetricLike] | None = None,
        weighted_metrics: Iterable[MetricLike] | None = None,
        memory_limit: int | None = None,
    ) -> None:
        """Say how the model is trained: optimizer, loss and metrics, by name, instance or function.

        memory_limit: bytes that a program may use besides the weights and the data; one that needs more is refused with
        a `MemoryLimitError` before anything runs.
        Keras's default optimizer is "rmsprop". Raises `ValueError` naming the nearest known names for an unknown one.
        """
        if memory_limit is not None and (not isinstance(memory_limit, (int, np.integer)) or memory_limit <= 0):
            raise ValueError(f"Expected memory_limit as a number of bytes. Received: memory_limit={memory_limit!r}")
        self._setup = TrainingSetup(optimizer, loss, metrics or (), weighted_metrics or ())
        self._programs = StepPrograms(self, None if memory_limit is None else int(memory_limit))

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._setup is not None

    @property
    def setup(self) -> TrainingSetup:
        """What `compile` set up; raises `ValueError` before it did, or when it was told no loss."""
        return self._require_setup("training")

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer, None before `compile`."""
        return None if self._setup is None else self._setup.optimizer

    @property
    def loss(self) -> Loss | None:
        """The loss, None before `compile`."""
        return None if self._setup is None else self._setup.loss

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that `compile` was told, once the model has seen targets."""
        return [] if self._setup is None else self._setup.metrics

    @property
    def metrics_names(self) -> list[str]:
        """The names of what `evaluate` returns."""
        return ["loss", *(metric.name for metric in self.metrics)]

    def reset_metrics(self) -> None:
        """Begin the running loss and metrics anew."""
        self.setup.reset()

    def forget_programs(self) -> None:
        """Drop all compiled programs: for a model whose structure changed."""
        self._programs = StepPrograms(self, self._programs.memory_limit)

    # Training and testing.

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Verbosity = "auto",
        callbacks: Iterable[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Sequence[Any] | None = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> History:
        """Train for `epochs - initial_epoch` epochs; return the loss and metrics of each as a `History`.

        x, y: samples along the first axis; the last batch may be smaller. Contiguous float32 and uint8 are not copied.
        validation_split: the part at the end that is kept for validation, cut off before shuffling.
        validation_data: (x, y) or (x, y, sample_weight).
        class_weight: maps labels to weights. steps_per_epoch: stop an epoch after this many batches.
        validation_freq: validate every so many epochs, or after the epochs (from 1) listed.
        verbose: 0 for silence, 1 for a progress bar, 2 for a line per epoch, "auto" for whichever fits the output.
        Raises `ValueError` before anything is changed when the data does not fit the model.
        """
        setup = self._require_setup("fit")
        batch_size = _positive(batch_size, DEFAULT_BATCH_SIZE, "batch_size")
        epochs = _positive(epochs, 1, "epochs")
        if steps_per_epoch is not None:
            steps_per_epoch = _positive(steps_per_epoch, 1, "steps_per_epoch")
        train, validation = self._training_and_validation(
            setup, (x, y, sample_weight), class_weight, validation_split, validation_data
        )
        validation_size = _positive(validation_batch_size, batch_size, "validation_batch_size")
        generator = new_stream().generator() if shuffle else None
        training = Training(self._programs, setup, train, batch_size, generator, steps_per_epoch)
        testing = None if validation is None else Testing(self._programs, setup, validation, validation_size)

        history = History()
        listeners = [history, *(callbacks or ())]
        if verbose:
            listeners.append(ProgbarLogger(verbose))
        params = {"epochs": epochs, "steps": training.steps, "batch_size": batch_size, "verbose": verbose}
        hooks = CallbackList(listeners, self, params)
        self.stop_training = False
        logs: dict[str, float] = {}
        hooks.call("on_train_begin", {})
        try:
            for epoch in range(max(0, initial_epoch), epochs):
                hooks.call("on_epoch_begin", epoch, {})
                logs = training.run_epoch(hooks)
                if testing is not None and _is_due(validation_freq, epoch):
                    logs |= {f"val_{name}": value for name, value in testing.run(hooks).items()}
                hooks.call("on_epoch_end", epoch, logs)
                if self.stop_training:
                    break
        finally:
            hooks.close()
        hooks.call("on_train_end", logs)
        return history

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Verbosity = "auto",
        sample_weight: Any = None,
        callbacks: Iterable[Callback] | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Return the loss over all samples, or [loss, metrics…] if there are metrics, or a dict of both by name."""
        setup = self._require_setup("evaluate")
        batch_size = _positive(batch_size, DEFAULT_BATCH_SIZE, "batch_size")
        data = self._checked(setup, x, y, sample_weight)
        testing = Testing(self._programs, setup, data, batch_size)
        listeners = [*(callbacks or ()), *([TestLogger(verbose)] if verbose else [])]
        params = {"steps": testing.steps, "batch_size": batch_size, "verbose": verbose}
        hooks = CallbackList(listeners, self, params)
        try:
            return _returned(testing.run(hooks), return_dict)
        finally:
            hooks.close()

    def predict(self, x: Any, batch_size: int | None = None, verbose: Verbosity = "auto") -> np.ndarray:
        """Return the model's result for each sample. Several threads may predict with one model at the same time.

        `verbose` is taken for Keras's sake: nothing is printed.
        """
        array = data_adapter.features(x)
        self.accept_input(array.shape)
        rows = _positive(batch_size, DEFAULT_BATCH_SIZE, "batch_size")
        program = self._programs.predict(TensorType(as_dtype(array.dtype), (rows, *array.shape[1:])))
        shape, dtype = program.result_type
        predictions = np.empty((len(array), *shape[1:]), dtype)
        for start in range(0, len(array), rows):
            program.run(array[start : start + rows], predictions[start : start + rows])
        return predictions

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Make one step on all samples as one batch; return loss and metrics as `evaluate` does.

        They are those of this batch before the step (Keras returns the mean since the last `reset_metrics`).
        """
        setup = self._require_setup("train_on_batch")
        data = self._checked(setup, x, y, sample_weight, class_weight)
        training = Training(self._programs, setup, data, len(data))
        return _returned(training.run_epoch(CallbackList((), self, {})), return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> float | list[float] | dict[str, float]:
        """Return loss and metrics of one batch, as `evaluate` does."""
        setup = self._require_setup("test_on_batch")
        data = self._checked(setup, x, y, sample_weight)
        testing = Testing(self._programs, setup, data, len(data))
        return _returned(testing.run(CallbackList((), self, {})), return_dict)

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """Return the model's result for all samples as one batch."""
        array = data_adapter.features(x)
        return self.predict(array, batch_size=len(array))

    def __call__(self, x: Any, training: bool | None = None) -> Any:
        """Apply the model to a symbolic value inside a trace, or to an array, for which it returns an array."""
        if isinstance(x, (Value, Variable)):
            return super().__call__(x, training=training)
        return self.predict_on_batch(x)

    # Graphs, for looking at.

    def forward_graph(self, batch_size: int = DEFAULT_BATCH_SIZE, dtype: str | DType = "float32") -> Graph:
        """Predictions and loss of a training batch of data of `dtype`, before any gradient."""
        return step_graphs.forward_step(self, batch_size, self._data_types("forward_graph", dtype)).graph

    def train_graph(self, batch_size: int = DEFAULT_BATCH_SIZE, dtype: str | DType = "float32") -> Graph:
        """The whole train step for data of `dtype`."""
        return step_graphs.train_step(self, batch_size, self._data_types("train_graph", dtype)).graph

    def test_graph(self, batch_size: int = DEFAULT_BATCH_SIZE, dtype: str | DType = "float32") -> Graph:
        """The test step for data of `dtype`."""
        return step_graphs.test_step(self, batch_size, self._data_types("test_graph", dtype)).graph

    def predict_graph(self, batch_size: int = DEFAULT_BATCH_SIZE, dtype: str | DType = "float32") -> Graph:
        """The model's result for a batch of data of `dtype`; needs no `compile`."""
        return step_graphs.predict_step(self, TensorType(as_dtype(dtype), (batch_size, *self._sample_shape()))).graph

    def inspect(
        self, batch_size: int = DEFAULT_BATCH_SIZE, mode: str = "train", dtype: str | DType = "float32"
    ) -> Inspection:
        """Return the stages between the layers and the machine code of a step: `inspect().stages["fused"].text()`.

        mode: "train" and "evaluate" need `compile`, "predict" does not. dtype: of the data set's features.
        """
        from gradloom.inspection import inspect_model

        return inspect_model(self, batch_size, mode, dtype)

    # Checks.

    def _require_setup(self, caller: str) -> TrainingSetup:
        if self._setup is None:
            raise ValueError(
                f"Model {self.name!r}: Expected compile(optimizer, loss, metrics) before {caller}. "
                "Received: a model that is not compiled"
            )
        if self._setup.loss is None:
            raise ValueError(
                f"Model {self.name!r}: Expected a loss for {caller}. Received: compile(loss=None); say, for example, "
                "compile(loss='mse')"
            )
        return self._setup

    def _checked(
        self,
        setup: TrainingSetup,
        x: Any,
        y: Any,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> Dataset:
        """Check data from outside against the model, and build the model for it if it is not built yet."""
        features = data_adapter.features(x)
        targets = data_adapter.targets(y, len(features))
        weights = data_adapter.weights(sample_weight, len(features))
        weights = data_adapter.weighted_by_class(class_weight, targets, weights)
        self.accept_input(features.shape)
        setup.check_targets(targets, self.output_shape, self.layers[-1], self.name)
        setup.resolve(self.output_shape, targets.shape)
        return Dataset(features, targets, weights)

    def _training_and_validation(
        self,
        setup: TrainingSetup,
        data: tuple[Any, Any, Any],
        class_weight: Mapping[int, float] | None,
        validation_split: float,
        validation_data: Sequence[Any] | None,
    ) -> tuple[Dataset, Dataset | None]:
        """Check all data of a `fit`; class weights count in training only."""
        train, validation = self._checked(setup, *data), None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
                raise ValueError(
                    "Expected validation_data as (x, y) or (x, y, sample_weight). "
                    f"Received: {type(validation_data).__name__}"
                )
            validation = self._checked(setup, *validation_data)
        elif validation_split:
            train, validation = train.split(validation_split)
        if class_weight is not None:
            assert train.y is not None
            weights = data_adapter.weighted_by_class(class_weight, train.y, train.sample_weight)
            train = Dataset(train.x, train.y, weights)
        return train, validation

    def _sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample, which a graph must know entirely."""
        shape = self.input_shape[1:]
        if None in shape:
            raise ValueError(f"Model {self.name!r}: Expected an input of known shape. Received: {self.input_shape}")
        return tuple(size for size in shape if size is not None)

    def _data_types(self, caller: str, dtype: str | DType) -> DataTypes:
        """The types of data that `fit` would be given: x of `dtype`, and targets as the loss wants them."""
        setup = self._require_setup(caller)
        x = TensorType(as_dtype(dtype), (OPEN, *self._sample_shape()))
        if isinstance(setup.loss, losses.SparseCategoricalCrossentropy):
            y = TensorType(I32, (OPEN, *_known(self.output_shape[1:-1])))
        else:
            y = TensorType(F32, (OPEN, *_known(self.output_shape[1:])))
        setup.resolve(self.output_shape, (None, *y.shape[1:]))
        return (("x", x), ("y", y))


def _known(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(1 if size is None else size for size in shape)


def _positive(value: int | None, default: int, name: str) -> int:
    """Return a count of at least 1."""
    value = default if value is None else value
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"Expected {name} as a positive integer. Received: {name}={value!r}")
    return int(value)


def _is_due(frequency: int | Sequence[int], epoch: int) -> bool:
    """Whether validation follows epoch `epoch`, counted from 0."""
    if isinstance(frequency, (int, np.integer)):
        return (epoch + 1) % int(frequency) == 0
    return epoch + 1 in frequency


def _returned(logs: dict[str, float], return_dict: bool) -> float | list[float] | dict[str, float]:
    """Loss and metrics in the form that Keras returns them."""
    if return_dict:
        return logs
    return list(logs.values()) if len(logs) > 1 else logs["loss"]
