"""Dtype policies under the names of `keras.mixed_precision`: in what layers compute, and in what they keep weights.

Under "mixed_bfloat16" variables are float32. What layers multiply by one another, their inputs and their weights, is
rounded to bfloat16, which has float32's range and 8 bits of precision; products are summed in float32. Gradients go the
same way: variables, their gradients and the loss are float32.

This differs from Keras in two things. Layers' results are float32, and so are those of `predict`: whoever reads one for
a product rounds it, and a compiled program stores only what is read. And what only normalizes, activates or drops
elements leaves its input as it is, so that nothing is rounded between a product and the function behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from gradloom.compiler.errors import DTypeError
from gradloom.compiler.types import BF16, F32, DType, as_dtype

MIXED = "mixed_bfloat16"
"""The policy with products of bfloat16."""


@dataclass(frozen=True)
class DTypePolicy:
    """What a layer computes in and keeps its weights in: "mixed_bfloat16", or one dtype for both, such as "float32".

    Raises `DTypeError` for names of neither kind, and for weights of bfloat16, which small updates would not change.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name == MIXED:
            return
        try:
            dtype = as_dtype(self.name)
        except DTypeError:
            raise DTypeError(f"Expected a policy: {MIXED!r}, or the name of a dtype. Received: {self.name!r}") from None
        if dtype == BF16:
            raise DTypeError(f"Expected a policy with weights of float32, such as {MIXED!r}. Received: {self.name!r}")

    @property
    def compute_dtype(self) -> DType:
        """The dtype to which the operands of products are converted."""
        return BF16 if self.name == MIXED else as_dtype(self.name)

    @property
    def variable_dtype(self) -> DType:
        """The dtype of weights."""
        return F32 if self.name == MIXED else as_dtype(self.name)


Policy = DTypePolicy
PolicyLike: TypeAlias = str | DType | DTypePolicy

_global = DTypePolicy("float32")


def dtype_policy() -> DTypePolicy:
    """The policy of layers that are made without one of their own: "float32" at first."""
    return _global


def set_dtype_policy(policy: PolicyLike) -> None:
    """Let layers that are made from now on, without a `dtype` of their own, have this policy."""
    global _global
    _global = as_policy(policy)


def as_policy(policy: PolicyLike | None) -> DTypePolicy:
    """The policy of a name, of a dtype, or for None the global one."""
    if policy is None:
        return _global
    if isinstance(policy, DTypePolicy):
        return policy
    return DTypePolicy(policy.numpy_name if isinstance(policy, DType) else policy)


global_policy = dtype_policy
set_global_policy = set_dtype_policy
