"""Model: a network with the methods for training, testing and prediction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

import numpy as np

from gradloom import data_adapter, step_graphs
from gradloom.autotuning import time_box
from gradloom.call_graph import is_single
from gradloom.callbacks import Callback, CallbackList, History, ProgbarLogger, TestLogger
from gradloom.compiler.ir import Graph
from gradloom.compiler.types import OPEN, DType, TensorType, as_dtype
from gradloom.data_adapter import Dataset
from gradloom.epochs import Testing, Training
from gradloom.metrics import Metric
from gradloom.network import Network, is_symbolic
from gradloom.optimizers import Optimizer, OptimizerLike
from gradloom.programs import StepPrograms
from gradloom.random_seed import new_stream
from gradloom.step_graphs import DataTypes
from gradloom.training_run import TrainingRun
from gradloom.training_setup import TrainingSetup, target_type
from gradloom.trees import as_array, unflatten

if TYPE_CHECKING:
    from gradloom.inspection import Inspection

DEFAULT_BATCH_SIZE = 32
Verbosity = int | str


class Model(Network):
    """A network that can be trained: `Model(inputs, outputs)` from symbolic tensors, or the base of one's own classes.

        inputs = gl.Input((784,))
        outputs = gl.layers.Dense(10)(inputs)
        model = gl.Model(inputs, outputs)

    inputs, outputs: one symbolic tensor, or a list, tuple or dict of several; data, targets, losses and metrics then
    come in lists or dicts, too, and so do predictions.
    `compile` says how to train, `fit` trains, `evaluate` tests; `predict` needs neither.
    """

    def __init__(
        self, inputs: Any = None, outputs: Any = None, name: str | None = None, trainable: bool = True
    ) -> None:
        super().__init__(inputs, outputs, name=name, trainable=trainable)
        self.stop_training = False
        self.history: History | None = None
        """Loss and metrics of the last `fit`; of its whole epochs, if it was interrupted."""
        self.training_run: TrainingRun | None = None
        """The `fit` that is on."""
        self._setup: TrainingSetup | None = None
        self._programs = StepPrograms(self)

    # What training is about.

    def compile(
        self,
        optimizer: OptimizerLike = "adam",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        memory_limit: int | None = None,
        autotune: bool | float = False,
        check_numerics: bool = False,
    ) -> None:
        """Say how the model is trained: optimizer, loss and a list of metrics, by name, instance or function.

        For several outputs a list with one loss for each, a dict by the names of outputs, or one loss for all; None
        for an output without a loss. What is made small is their sum, each times its number in `loss_weights`.
        Metrics are a list with those of each output, or a dict by their names.
        memory_limit: bytes that a program may use, with the weights and without the data sets, by default those of the
        machine; one that needs more is refused with a `MemoryLimitError` before anything runs.
        autotune: whether to measure, when a program is first needed, by which of several ways its matrix products and
        convolutions are fastest, or the seconds that may take (30 for True); choices are printed and kept on disk.
        check_numerics: whether NaN and infinities in results raise a `NumericsError` that names op, layer and line.
        Keras has no such arguments. For predictions `compile(autotune=True)` is enough.
        Keras's default optimizer is "rmsprop". Raises `ValueError` naming the nearest known names for an unknown one.
        """
        if memory_limit is not None and not _is_integer(memory_limit, 1):
            raise ValueError(
                f"Expected memory_limit as a positive number of bytes. Received: memory_limit={memory_limit!r}"
            )
        if check_numerics not in (True, False):
            raise ValueError(f"Expected check_numerics as True or False. Received: check_numerics={check_numerics!r}")
        limit, seconds = None if memory_limit is None else int(memory_limit), time_box(autotune)
        self._setup = TrainingSetup(optimizer, loss, loss_weights, metrics, weighted_metrics)
        self._programs = StepPrograms(self, limit, seconds, check_numerics)

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments of `compile` that make the model compiled like this one; raises `ValueError` before it was."""
        if self._setup is None:
            raise ValueError(f"Model {self.name!r}: Expected compile before its config. Received: a model without")
        programs = self._programs
        return {
            **self._setup.get_config(),
            "memory_limit": programs.memory_limit,
            "autotune": programs.autotune or False,
            "check_numerics": programs.check_numerics,
        }

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
    def loss(self) -> Any:
        """The loss, or the list or dict of those of the outputs; None before `compile`."""
        return None if self._setup is None else self._setup.loss

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that `compile` was told, once the model has seen targets."""
        return [] if self._setup is None else self._setup.metrics

    @property
    def metrics_names(self) -> list[str]:
        """The names of what `evaluate` returns."""
        return ["loss"] if self._setup is None else self._setup.names

    def reset_metrics(self) -> None:
        """Begin the running loss and metrics anew."""
        self.setup.reset()

    def forget_programs(self) -> None:
        """Drop all compiled programs: for a model whose structure changed."""
        self._programs = self._programs.renewed(self)

    # Training and testing.

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Verbosity = "auto",
        callbacks: Callback | Iterable[Callback] | None = None,
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
        For several inputs or outputs a list, or a dict by their names. So are sample weights, or all share one.
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
        if not _is_integer(initial_epoch, 0):
            raise ValueError(
                f"Expected initial_epoch as an integer from 0 on. Received: initial_epoch={initial_epoch!r}"
            )
        _check_frequency(validation_freq)
        if shuffle not in (True, False):
            raise ValueError(f"Expected shuffle as True or False. Received: shuffle={shuffle!r}")
        if steps_per_epoch is not None:
            steps_per_epoch = _positive(steps_per_epoch, 1, "steps_per_epoch")
        train, validation = self._training_and_validation(
            setup, (x, y, sample_weight), class_weight, validation_split, validation_data
        )
        validation_size = _positive(validation_batch_size, batch_size, "validation_batch_size")
        training = Training(
            self._programs, setup, train, batch_size, new_stream() if shuffle else None, steps_per_epoch
        )
        testing = None if validation is None else Testing(self._programs, setup, validation, validation_size)
        self._programs.report(verbose)

        listeners = _listed(callbacks)
        history = next((one for one in listeners if isinstance(one, History)), None) or History()
        # What other callbacks add to the logs is shown and recorded, too.
        listeners = _with_display(listeners, ProgbarLogger(verbose) if verbose else None)
        listeners += [] if history in listeners else [history]
        params = {
            "epochs": epochs,
            "steps": training.steps,
            "batch_size": batch_size,
            "verbose": verbose,
            "do_validation": testing is not None,
        }
        hooks = CallbackList(listeners, self, params)
        self.stop_training = False
        self.history = history
        TrainingRun(self, training, testing, hooks, range(initial_epoch, epochs), validation_freq).run()
        self.history = history  # a callback may have trained the model, too
        return history

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Verbosity = "auto",
        sample_weight: Any = None,
        callbacks: Callback | Iterable[Callback] | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Return the loss over all samples, or [loss, metrics…] if there are metrics, or a dict of both by name."""
        setup = self._require_setup("evaluate")
        batch_size = _positive(batch_size, DEFAULT_BATCH_SIZE, "batch_size")
        data = self._checked(setup, x, y, sample_weight)
        testing = Testing(self._programs, setup, data, batch_size)
        self._programs.report(verbose)
        listeners = _with_display(_listed(callbacks), TestLogger(verbose) if verbose else None)
        params = {"steps": testing.steps, "batch_size": batch_size, "verbose": verbose}
        hooks = CallbackList(listeners, self, params)
        try:
            return _returned(testing.run(hooks), return_dict)
        finally:
            hooks.close()

    def predict(self, x: Any, batch_size: int | None = None, verbose: Verbosity = "auto") -> Any:
        """Return the model's result for each sample, in the outputs' structure if there are several.

        Several threads may predict with one model at the same time. `verbose`, taken for Keras's sake, prints what
        autotuning chose and nothing else.
        """
        arrays = self._features(x)
        batch_size, samples = _positive(batch_size, DEFAULT_BATCH_SIZE, "batch_size"), len(arrays[0])
        predictions: list[np.ndarray] = []
        full = samples // batch_size * batch_size
        # The last batch is a program of its own, unless the model looks at each sample alone.
        for first, last, rows in ((0, full, batch_size), (full, samples, samples - full)):
            if first == last:
                continue
            types = [TensorType(as_dtype(array.dtype), (rows, *array.shape[1:])) for array in arrays]
            program = self._programs.predict(types, most=batch_size)
            self._programs.report(verbose)
            predictions = predictions or program.empty(samples)
            for start in range(first, last, rows):
                batch = slice(start, start + rows)
                program.run([array[batch] for array in arrays], [result[batch] for result in predictions], start)
        return self.call_graph.result(predictions)

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
        data = self._checked(setup, x, y, sample_weight).weighted_by_class(class_weight, self._classes)
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

    def predict_on_batch(self, x: Any) -> Any:
        """Return the model's result for all samples as one batch."""
        if type(x) is np.ndarray and (program := self._programs.whole.get((x.shape, x.dtype))):
            return program.run_whole(x)
        arrays = self._features(x)
        predictions = self.predict(x, batch_size=len(arrays[0]))
        if isinstance(predictions, np.ndarray) and len(arrays) == 1:
            self._programs.keep_whole(arrays[0].shape, as_dtype(arrays[0].dtype))
        return predictions

    def __call__(self, x: Any, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Apply the model to symbolic tensors, to values inside a trace, or to arrays, for which it returns arrays."""
        if is_symbolic(x):
            return super().__call__(x, *args, training=training, **kwargs)
        return self.predict_on_batch(x)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be pickled, or copied without the weights: compiled code and functions have no lasting form."""
        raise TypeError(
            f"Model {self.name!r}: Expected copy.deepcopy(model) for an independent model, or model.save(path) and "
            "gl.models.load_model(path) to keep it. Received: a model to be pickled or copied shallowly"
        )

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
        types = [TensorType(as_dtype(dtype), (batch_size, *shape)) for shape in self._sample_shapes()]
        return step_graphs.predict_step(self, types).graph

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

    def _features(self, x: Any) -> list[np.ndarray]:
        """Check the features of data from outside, and build the model for them if it is not built yet."""
        if self.built:
            graph = self.call_graph
            single = is_single(graph.input_structure)
            parts = data_adapter.by_name(x, graph.input_names, "x", single)
            arrays = data_adapter.features(parts, data_adapter.labels("x", graph.input_names, single))
            for place, tensor in enumerate(graph.inputs):
                if arrays[place].ndim == 1 and tensor.shape[1:] == (1,):  # One number per sample may come as a vector.
                    arrays[place] = arrays[place][:, np.newaxis]
            self.require_batches()
            self.accept_input([array.shape for array in arrays])
            return arrays
        leaves, structure = self._first_data(x)
        names = ["x"] if len(leaves) == 1 else [f"x.{position}" for position in range(len(leaves))]
        arrays = data_adapter.features(leaves, names)
        shapes = unflatten(structure, [(None, *array.shape[1:]) for array in arrays])
        self.build_layers(shapes, [as_dtype(array.dtype) for array in arrays])
        self.require_batches()
        return arrays

    def _checked(self, setup: TrainingSetup, x: Any, y: Any, sample_weight: Any = None) -> Dataset:
        """Check data from outside against the model, and build the model for it if it is not built yet."""
        features = self._features(x)
        data = dict(zip(step_graphs.input_labels(self), features, strict=True))
        graph, samples = self.call_graph, len(features[0])
        single = is_single(graph.output_structure)
        given = data_adapter.by_name(y, graph.output_names, "y", single, optional=True)
        shapes = [tensor.shape for tensor in graph.outputs]
        makers = [tensor.name if tensor.call is None else tensor.call.name for tensor in graph.outputs]
        labels = step_graphs.output_labels(self, "y")
        arrays = [None if one is None else as_array(one, label) for one, label in zip(given, labels, strict=True)]
        setup.resolve(graph.output_names, makers, shapes, [None if one is None else one.shape for one in arrays])
        for place, label in enumerate(labels):
            if setup.outputs[place].is_used:
                targets = data_adapter.targets(arrays[place], samples, label)
                setup.outputs[place].check_targets(targets, shapes[place], self.name)
                data[label] = targets
        if sample_weight is not None:
            shared = not single and isinstance(sample_weight, np.ndarray)
            weights = (
                [sample_weight] * len(given)
                if shared
                else data_adapter.by_name(sample_weight, graph.output_names, "sample_weight", single, optional=True)
            )
            for weight, label in zip(weights, step_graphs.output_labels(self, "sample_weight"), strict=True):
                if weight is not None:
                    data[label] = data_adapter.weights(weight, samples, label)
        return Dataset(data)

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
            try:
                validation = self._checked(setup, *validation_data)
            except (TypeError, ValueError) as error:
                error.args = (f"validation_data: {error}",)
                raise
        elif validation_split:
            train, validation = train.split(validation_split)
        return train.weighted_by_class(class_weight, self._classes), validation

    @property
    def _classes(self) -> int | None:
        """How many classes a single output tells apart, None where it is one number."""
        size = self.call_graph.outputs[0].shape[-1]
        return size if size is not None and size > 1 else None

    def _sample_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of one sample of each input, which a graph must know entirely."""
        shapes = [tensor.shape[1:] for tensor in self.inputs]
        if any(None in shape for shape in shapes):
            raise ValueError(f"Model {self.name!r}: Expected an input of known shape. Received: {self.input_shape}")
        return [tuple(size for size in shape if size is not None) for shape in shapes]

    def _data_types(self, caller: str, dtype: str | DType) -> DataTypes:
        """The types of data that `fit` would be given: x of `dtype`, and targets as the losses want them."""
        setup, graph = self._require_setup(caller), self.call_graph
        x = [TensorType(as_dtype(dtype), (OPEN, *shape)) for shape in self._sample_shapes()]
        shapes = [tensor.shape for tensor in graph.outputs]
        y = [target_type(loss, shape) for loss, shape in zip(setup.loss_of(graph.output_names), shapes, strict=True)]
        makers = [tensor.name if tensor.call is None else tensor.call.name for tensor in graph.outputs]
        setup.resolve(graph.output_names, makers, shapes, [(None, *type.shape[1:]) for type in y])
        used = zip(setup.outputs, step_graphs.output_labels(self, "y"), y, strict=True)
        return (
            *zip(step_graphs.input_labels(self), x, strict=True),
            *((label, type) for output, label, type in used if output.is_used),
        )


def _positive(value: int | None, default: int, name: str) -> int:
    """Return a count of at least 1."""
    value = default if value is None else value
    if not _is_integer(value, 1):
        raise ValueError(f"Expected {name} as a positive integer. Received: {name}={value!r}")
    return int(value)


def _is_integer(value: Any, low: int) -> bool:
    """Whether `value` is an integer from `low` on; truth values are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= low)


def _listed(callbacks: Callback | Iterable[Callback] | None) -> list[Callback]:
    """One callback, several or none as a list."""
    return [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())


def _with_display(callbacks: list[Callback], display: ProgbarLogger | TestLogger | None) -> list[Callback]:
    """Callbacks and the display: it makes room for what the others print, and comes last."""
    return callbacks if display is None else [display.clearing(), *callbacks, display]


def _check_frequency(frequency: Any) -> None:
    """Raise an error unless `frequency` says after which epochs to validate: a number of epochs, or a list of them."""
    numbers = [frequency] if not isinstance(frequency, Collection) or isinstance(frequency, str) else frequency
    if not all(_is_integer(number, 1) for number in numbers):
        raise ValueError(
            "Expected validation_freq as a positive integer, or a list of epochs from 1 on. "
            f"Received: validation_freq={frequency!r}"
        )


def _returned(logs: dict[str, float], return_dict: bool) -> float | list[float] | dict[str, float]:
    """Loss and metrics in the form that Keras returns them."""
    if return_dict:
        return logs
    return list(logs.values()) if len(logs) > 1 else logs["loss"]
