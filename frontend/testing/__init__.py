"""`gl.testing`: checks of gradients, of functions, layers and ops, at one point or as properties that hypothesis tests.

Names are loaded when they are first used: hypothesis only by those that need it.

Where to read on: a check goes through `functions` (arrays out of arguments, by `arguments`), `problem` (one graph with
the gradients, in a `float64_graph`) and `check`, which walks along `lines` with `differences`, keeps off `kinks`, and
has its tolerances from `evaluation`; `compiled` compares programs. What it finds is counted in `records`, or raised as
one of `errors`, with a message by `report`, the node at fault by `blame`, and a test to paste by `snippets` and
`literals`. `properties` tries many arguments, drawn by `strategies` and `layer_strategies`; random graphs are made of
`graph_strategies`, `graph_steps` and `graph_pool`. `profiles` and `pytest_plugin` are for test runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradloom.testing.check import check_gradients
    from gradloom.testing.errors import GradientError, NotFiniteError, NotJudgedError
    from gradloom.testing.graph_strategies import graphs
    from gradloom.testing.layer_strategies import LayerCall, layers
    from gradloom.testing.profiles import PROFILE
    from gradloom.testing.properties import gradient_property
    from gradloom.testing.records import Checks
    from gradloom.testing.strategies import Convolution, Pooling, convolution, pooling, tensor

_HOMES = {
    "Checks": "records",
    "Convolution": "strategies",
    "GradientError": "errors",
    "LayerCall": "layer_strategies",
    "NotFiniteError": "errors",
    "NotJudgedError": "errors",
    "PROFILE": "profiles",
    "Pooling": "strategies",
    "check_gradients": "check",
    "convolution": "strategies",
    "gradient_property": "properties",
    "graphs": "graph_strategies",
    "layers": "layer_strategies",
    "pooling": "strategies",
    "tensor": "strategies",
}

__all__ = [
    "PROFILE",
    "Checks",
    "Convolution",
    "GradientError",
    "LayerCall",
    "NotFiniteError",
    "NotJudgedError",
    "Pooling",
    "check_gradients",
    "convolution",
    "gradient_property",
    "graphs",
    "layers",
    "pooling",
    "tensor",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"gradloom.testing.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'gradloom.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
