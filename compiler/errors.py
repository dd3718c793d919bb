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


class VerificationError(GradloomError, AssertionError):
    """A graph breaks a rule of the IR: a defect of the compiler, not of the user's program."""


class MemoryLimitError(GradloomError, MemoryError):
    """A program would need more memory than it may use; raised before anything runs."""
