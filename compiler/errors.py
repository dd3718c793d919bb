"""The exceptions of the compiler: each says what was expected, what came, and where."""


class GradloomError(Exception):
    """Base of every exception that Gradloom raises on purpose."""


class ShapeError(GradloomError, ValueError):
    """Shapes do not fit an operation."""


class DTypeError(GradloomError, TypeError):
    """Dtypes do not fit an operation."""


class NoGradientError(GradloomError, TypeError):
    """A gradient was asked for through an op that has none."""


class ParseError(GradloomError, ValueError):
    """Text is no graph: says the line and what was expected there; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class FusionError(GradloomError, ValueError):
    """Kernels cannot be made of the groups of nodes that a graph's text says."""


class VerificationError(GradloomError, AssertionError):
    """A graph breaks a rule of the IR: a defect of the compiler, not of the user's program."""


class MemoryLimitError(GradloomError, MemoryError, ValueError):
    """A program or a weight would need more memory than it may use; raised before any of it is allocated."""


class NumericsError(GradloomError, FloatingPointError):
    """A step computed NaN or an infinity: says which, and the op, layer, line and batch in which it arose.

    `kind` is "NaN", "Inf" or "-Inf". `op` is the name of the op that made it from finite numbers, and `gradient_of`
    the op whose gradient that is part of, else ""; or `op` is "input", and `name` the label of what brought it.
    `layer` is the path of the layer (or loss, metric, optimizer), `source` the user's `file:line`; each is the first
    of several where code shares a node. `index` is the place in the op's result, or in the input.
    `step` is the step's number among those of one program; `batch` and `epoch` count from 1, as progress is shown;
    `samples` are the first and the last sample of a batch that was predicted. What does not apply is None.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "",
        op: str = "",
        gradient_of: str = "",
        name: str = "",
        layer: str = "",
        source: str = "",
        index: tuple[int, ...] = (),
        step: int = 0,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.op = op
        self.gradient_of = gradient_of
        self.name = name
        self.layer = layer
        self.source = source
        self.index = index
        self.step = step
        self.batch: int | None = None
        self.epoch: int | None = None
        self.samples: tuple[int, int] | None = None

    def in_batch(self, batch: int, epoch: int | None) -> None:
        """Let the message begin with the batch; what is said of a whole round of batches later comes before it."""
        self.batch, self.epoch = batch, epoch
        self._begin(f"Batch {batch}" + ("" if epoch is None else f" of epoch {epoch}"))

    def in_samples(self, first: int, last: int) -> None:
        """Let the message begin with the samples that were predicted."""
        self.samples = first, last
        self._begin(f"Samples {first} to {last}")

    def _begin(self, where: str) -> None:
        self.args = (f"{where}: {self.args[0]}",)
