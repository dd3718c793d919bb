"""What checks of gradients raise."""

from __future__ import annotations

from collections.abc import Callable

from gradloom.compiler.cached import cached_property
from gradloom.testing.records import Checks


class GradientError(AssertionError):
    """A gradient is wrong, or compiled code does not compute what the graph says.

    check: which check failed: "gradient", "adjoint", "finite", "convention", "interval", "dtype", "compiled", "unfused"
    or "threads".

    The message is made when it is first asked for: looking for the node at fault takes longer than the check did, and
    hypothesis raises many such errors while it looks for the smallest example.
    """

    def __init__(
        self,
        check: str,
        summary: str,
        blame: Callable[[], str],
        rest: Callable[[str], str],
        snippet: Callable[[], str],
    ) -> None:
        super().__init__(summary)
        self.check = check
        self._blame = blame
        self._rest = rest
        self._snippet = snippet

    @cached_property
    def node(self) -> str:
        """The first node that is wrong, with its layer and source line; "" where no node is, by itself."""
        return self._blame()

    @cached_property
    def snippet(self) -> str:
        """A module with a test that fails in the same way."""
        return self._snippet()

    @cached_property
    def message(self) -> str:
        """What is wrong, where, and a test that shows it."""
        return f"{self.args[0]}\n{self._rest(self.node)}\nAs a test:\n\n{self.snippet}"

    def __str__(self) -> str:
        return self.message


class NotJudgedError(AssertionError):
    """No gradient was judged: all directions lead over kinks, or rounding may be as large as the derivatives."""

    def __init__(self, checks: Checks) -> None:
        super().__init__(f"{checks.name}: no gradient was judged: {'; '.join(checks.reasons())}")
        self.checks = checks


class NotFiniteError(ValueError):
    """A function is not finite at the point at which its gradient was to be checked."""
