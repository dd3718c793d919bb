"""What `compile` sets up for training: losses, metrics and optimizer, with the running sums behind the logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradloom import losses, metrics, ops, optimizers
from gradloom.compiler.errors import GradloomError
from gradloom.compiler.ir import Value
from gradloom.compiler.provenance import layer_scope, user_line
from gradloom.compiler.types import F32, I32, OPEN, TensorType
from gradloom.layers.shapes import Shape
from gradloom.losses import Loss
from gradloom.metrics import Metric, MetricLike
from gradloom.optimizers import OptimizerLike
from gradloom.variables import Variable


class OutputSetup:
    """Loss and metrics of one output of a model.

    The running loss is kept as one sum, which programs add to; how many samples it is about is known on the host.
    `prefix` is what names in the logs begin with: nothing where there is one output, else its name.
    """

    def __init__(
        self, name: str, prefix: str, loss: Loss | None, plain: Sequence[Metric], weighted: Sequence[Metric]
    ) -> None:
        self.name = name
        self.prefix = prefix
        self.loss = loss
        self.plain = plain
        self.weighted = weighted
        path = f"loss/{prefix}total"
        self.total = Variable("zeros", (), trainable=False, name="total", role="state", path=path)

    @property
    def is_used(self) -> bool:
        """Whether targets are needed."""
        return self.loss is not None or bool(self.plain) or bool(self.weighted)

    def compute_loss(self, y: Value, predictions: Value, sample_weight: Value | None) -> Value:
        """The batch's loss, a scalar."""
        assert self.loss is not None
        loss = self.loss(y, predictions, sample_weight)
        return ops.mean(loss) if loss.ndim else loss

    def update_metrics(self, y: Value, predictions: Value, sample_weight: Value | None) -> None:
        """Let the metrics take in a batch; those that were given as `metrics` heed no sample weights."""
        for metric in self.plain:
            with layer_scope(f"{self.prefix}{metric.name}"):
                metric.update_state(y, predictions)
        for metric in self.weighted:
            with layer_scope(f"{self.prefix}{metric.name}"):
                metric.update_state(y, predictions, sample_weight)

    def check_targets(self, y: np.ndarray, output_shape: Shape, model: str) -> None:
        """Raise an error that names the output's layer when targets do not fit its shape."""
        if self.loss is None:
            return
        try:
            self.loss.check_targets(y, output_shape)
        except (GradloomError, ValueError) as error:
            where = f"Model {model!r}, loss {self.loss.name!r} of the output of layer {self.name!r}"
            raise type(error)(f"{where}: {error}") from None


class TrainingSetup:
    """Optimizer, and losses and metrics for each output, of a compiled model.

    What belongs to which output is known once the model is: `resolve` makes the `outputs`.
    """

    def __init__(
        self,
        optimizer: OptimizerLike,
        loss: Any,
        loss_weights: Any,
        metrics: Any,
        weighted_metrics: Any,
    ) -> None:
        self.source = user_line()
        """The user's `file:line` that called `compile`."""
        self.optimizer = optimizers.get(optimizer)
        self.loss: Any = _map(losses.get, loss)
        self.outputs: list[OutputSetup] = []
        self._loss_weights = loss_weights
        self._plain = _checked(metrics, "metrics")
        self._weighted = _checked(weighted_metrics, "weighted_metrics")
        self._factors: dict[OutputSetup, Variable] = {}
        self._rounds = 0

    def get_config(self) -> dict[str, Any]:
        """What `compile` was told, with the optimizer as it is now."""
        return {
            "optimizer": self.optimizer,
            "loss": self.loss,
            "loss_weights": self._loss_weights,
            "metrics": self._plain,
            "weighted_metrics": self._weighted,
        }

    @property
    def metrics(self) -> list[Metric]:
        """The metrics, for each output those that heed sample weights last; empty before `resolve`."""
        return [metric for output in self.outputs for metric in (*output.plain, *output.weighted)]

    @property
    def losses(self) -> list[OutputSetup]:
        """The outputs that have a loss."""
        return [output for output in self.outputs if output.loss is not None]

    def loss_of(self, names: Sequence[str]) -> list[Loss | None]:
        """The loss of each output of these names."""
        return _for_each_output(self.loss, names, "loss")

    def resolve(
        self,
        names: Sequence[str],
        layers: Sequence[str],
        shapes: Sequence[Shape],
        target_shapes: Sequence[Sequence[int | None] | None],
    ) -> None:
        """Make losses and metrics of the outputs, now that the shapes say which kind of accuracy is meant."""
        if self.outputs:
            return
        single = len(names) == 1
        kinds = (
            self._metrics_of(self._plain, names, "metrics"),
            self._metrics_of(self._weighted, names, "weighted_metrics"),
        )
        weights = _for_each_output(self._loss_weights, names, "loss_weights", spread=False)
        made = []
        for place, loss in enumerate(self.loss_of(names)):
            plain, weighted = (
                [metrics.resolve(m, shapes[place], target_shapes[place], loss) for m in kind[place]] for kind in kinds
            )
            prefix = "" if single else f"{names[place]}_"
            made.append(OutputSetup(layers[place], prefix, loss, plain, weighted))
        if not any(output.loss for output in made):
            raise ValueError(f"Expected a loss for one of the outputs {list(names)}. Received: none")
        self.outputs = made
        for output, weight in zip(made, weights, strict=True):
            if weight is not None:
                path = f"loss/{output.prefix}weight"
                self._factors[output] = Variable(float(weight), name="weight", role="hyperparameter", path=path)

    def _metrics_of(self, given: Any, names: Sequence[str], argument: str) -> list[list[MetricLike]]:
        """The metrics of each output."""
        if isinstance(given, Mapping) or len(names) > 1:
            each = _for_each_output(given or None, names, argument, spread=False)
        else:
            each = [given]
        return [[] if one is None else list(one) if isinstance(one, (list, tuple)) else [one] for one in each]

    def total_loss(self, each: Mapping[OutputSetup, Value]) -> Value:
        """The weighted sum of the outputs' losses: what is made small."""
        terms = [loss * self._factors[out] if out in self._factors else loss for out, loss in each.items()]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    @contextmanager
    def round(self) -> Iterator[None]:
        """Begin the running losses and metrics anew, for an epoch or a test.

        A callback may test, or train, in the midst of an epoch: after such a round inside of another the sums are those
        of the outer one again.
        """
        sums = [output.total for output in self.losses]
        sums += [variable for metric in self.metrics for variable in metric.variables]
        outer = [variable.numpy() for variable in sums] if self._rounds else []
        self._rounds += 1
        try:
            self.reset()
            yield
        finally:
            self._rounds -= 1
            for variable, value in zip(sums, outer, strict=False):
                variable.assign(value)

    def reset(self) -> None:
        """Begin the running losses and metrics anew."""
        for output in self.losses:
            output.total.assign(np.float32(0))
        for metric in self.metrics:
            metric.reset_state()

    def logs(self, samples: int) -> dict[str, float]:
        """Losses and metrics over the `samples` samples since `reset`: the weighted sum of the losses first."""
        logs = {"loss": 0.0}
        for output in self.losses:
            mean = float(output.total) / samples if samples else 0.0
            logs["loss"] += mean * float(self._factors[output]) if output in self._factors else mean
            if output.prefix:
                logs[f"{output.prefix}loss"] = mean
        for output in self.outputs:
            for metric in (*output.plain, *output.weighted):
                logs[f"{output.prefix}{metric.name}"] = float(metric.result())
        return logs

    @property
    def names(self) -> list[str]:
        """The names of the logs."""
        return list(self.logs(0))


def target_type(loss: Loss | None, output_shape: Shape) -> TensorType:
    """The type of targets that a loss wants: class numbers, or numbers of the output's shape."""
    if isinstance(loss, losses.SparseCategoricalCrossentropy):
        return TensorType(I32, (OPEN, *_known(output_shape[1:-1])))
    return TensorType(F32, (OPEN, *_known(output_shape[1:])))


def _known(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(1 if size is None else size for size in shape)


def _for_each_output(given: Any, names: Sequence[str], argument: str, spread: bool = True) -> list[Any]:
    """Divide what `compile` was told among the outputs: a list in their order, a dict by name.

    spread: whether a thing alone is for all outputs.
    """
    if isinstance(given, Mapping) and "class_name" not in given:
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"Expected {argument} for the outputs {list(names)}. Received: {argument} for {unknown}")
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)):
        if len(given) != len(names):
            raise ValueError(
                f"Expected {argument} with an entry for each of the outputs {list(names)}. "
                f"Received: {len(given)} of them"
            )
        return list(given)
    if given is None or spread:
        return [given] * len(names)
    if len(names) > 1:
        raise ValueError(f"Expected {argument} as a list or dict for the outputs {list(names)}. Received: {given!r}")
    return [given]


def _map(function: Callable[[Any], Any], given: Any) -> Any:
    """Apply `function` to each thing given: alone, in lists or in dicts by the outputs' names."""
    if given is None:
        return None
    if isinstance(given, Mapping) and "class_name" not in given:
        return {name: _map(function, one) for name, one in given.items()}
    if isinstance(given, (list, tuple)):
        return [_map(function, one) for one in given]
    return function(given)


def _checked(given: Iterable[Any] | Mapping[str, Any] | None, argument: str) -> Any:
    """Refuse unknown metrics when a model is compiled rather than when it is trained."""
    if isinstance(given, str):
        raise TypeError(f"Expected {argument} as a list. Received: {given!r}")
    kept = given if isinstance(given, Mapping) else list(given or ())
    _map(metrics.get, kept)
    return kept
