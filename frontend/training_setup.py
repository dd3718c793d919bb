"""What `compile` sets up for training: loss, metrics and optimizer, with the running sums behind the logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gradloom import losses, metrics, ops, optimizers
from gradloom.compiler.errors import GradloomError
from gradloom.compiler.ir import Value
from gradloom.layers.layer import Layer
from gradloom.layers.shapes import Shape
from gradloom.losses import Loss, LossLike
from gradloom.metrics import Metric, MetricLike
from gradloom.optimizers import OptimizerLike
from gradloom.variables import Variable


class TrainingSetup:
    """Loss, metrics and optimizer of a compiled model.

    The running loss is kept as one sum, which programs add to; how many samples it is about is known on the host.
    """

    def __init__(
        self,
        optimizer: OptimizerLike,
        loss: LossLike | None,
        metrics: Iterable[MetricLike],
        weighted_metrics: Iterable[MetricLike],
    ) -> None:
        self.optimizer = optimizers.get(optimizer)
        self.loss: Loss | None = None if loss is None else losses.get(loss)
        self.loss_total = Variable("zeros", (), trainable=False, name="total", role="state", path="loss/total")
        self._plain = _checked(metrics, "metrics")
        self._weighted = _checked(weighted_metrics, "weighted_metrics")
        self._metrics: tuple[list[Metric], list[Metric]] | None = None

    @property
    def loss_is_mean(self) -> bool:
        """Whether the loss is a sum over the number of samples, rather than over their weights."""
        return self.loss is not None and self.loss.reduction in ("sum_over_batch_size", "mean", "none", None)

    @property
    def metrics(self) -> list[Metric]:
        """The metrics, those that heed sample weights last; empty before `resolve`."""
        plain, weighted = self._metrics or ([], [])
        return [*plain, *weighted]

    def resolve(self, output_shape: Shape, target_shape: Sequence[int | None] | None) -> None:
        """Make the metrics, now that the shapes say which kind of accuracy is meant."""
        if self._metrics is None:
            plain = [metrics.resolve(m, output_shape, target_shape, self.loss) for m in self._plain]
            weighted = [metrics.resolve(m, output_shape, target_shape, self.loss) for m in self._weighted]
            self._metrics = plain, weighted

    def check_targets(self, y: np.ndarray, output_shape: Shape, output_layer: Layer, model: str) -> None:
        """Raise an error that names the model's last layer, `output_layer`, when targets do not fit its output."""
        assert self.loss is not None
        try:
            self.loss.check_targets(y, output_shape)
        except (GradloomError, ValueError) as error:
            where = f"Model {model!r}, loss {self.loss.name!r} of the output of layer {output_layer.name!r}"
            raise type(error)(f"{where}: {error}") from None

    def compute_loss(self, y: Value, predictions: Value, sample_weight: Value | None) -> Value:
        """The batch's loss, a scalar."""
        assert self.loss is not None
        loss = self.loss(y, predictions, sample_weight)
        return ops.mean(loss) if loss.ndim else loss

    def update_metrics(self, y: Value, predictions: Value, valid: Value | None, sample_weight: Value | None) -> None:
        """Let the metrics take in a batch: `valid` is 0 for padding, which no metric counts."""
        plain, weighted = self._metrics or ([], [])
        for metric in plain:
            metric.update_state(y, predictions, valid)
        for metric in weighted:
            metric.update_state(y, predictions, valid if sample_weight is None else sample_weight)

    def reset(self) -> None:
        """Begin the running loss and metrics anew."""
        self.loss_total.assign(np.float32(0))
        for metric in self.metrics:
            metric.reset_state()

    def logs(self, samples: int) -> dict[str, float]:
        """Loss and metrics over the `samples` samples since `reset`."""
        logs = {"loss": float(self.loss_total) / samples if samples else 0.0}
        for metric in self.metrics:
            logs[metric.name] = float(metric.result())
        return logs


def _checked(identifiers: Iterable[MetricLike], argument: str) -> list[MetricLike]:
    """Refuse unknown metrics when a model is compiled rather than when it is trained."""
    if isinstance(identifiers, str):
        raise TypeError(f"Expected {argument} as a list. Received: {identifiers!r}")
    listed = list(identifiers)
    for identifier in listed:
        metrics.get(identifier)
    return listed
