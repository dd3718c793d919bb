"""`gl.ops`: functions of symbolic values, with the names and the behaviour of `keras.ops`."""

from gradloom.compiler import ops as _functions
from gradloom.compiler.ops import *  # noqa: F403 - for type checkers and editors, which see the functions themselves
from gradloom.recording import recordable as _recordable

_OF_THE_COMPILER = ("as_value", "getitem", "log_complement", "upsample")
"""Functions that other functions and layers are made of."""

__all__ = [_name for _name in _functions.__all__ if _name not in _OF_THE_COMPILER]

# On the symbolic tensors of a model each function records itself instead.
globals().update({_name: _recordable(getattr(_functions, _name)) for _name in __all__})
