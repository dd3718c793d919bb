"""Whole layers as strategies: a kind of layer with arguments, an input and weights that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradloom import layers as all_layers
from gradloom.compiler.ir import Value
from gradloom.layers import Layer
from gradloom.naming import snake_case
from gradloom.testing.arguments import STATIC
from gradloom.testing.profiles import import_hypothesis
from gradloom.testing.strategies import tensor
from gradloom.trees import map_leaves
from gradloom.variables import Trace

Draw = Callable[[Any], Any]


@dataclass(frozen=True)
class LayerCall:
    """A layer's class and configuration, an input and weights: called, it applies the layer to them.

    x: an array, or a list of arrays for layers that join several. weights: those that training changes, in the order of
    `Layer.trainable_weights`; others, moving statistics for example, have their first values. training: for
    layers that then compute something else.
    """

    layer: type[Layer]
    config: dict[str, Any] = field(metadata={STATIC: True})
    x: Any
    weights: list[Any] = field(default_factory=list)
    training: bool = False

    def __call__(self) -> Any:
        """The layer's result, in the dtype of its input."""
        trace = Trace.current()
        first = self.x[0] if isinstance(self.x, list) else self.x
        if trace is None or not isinstance(first, Value):
            raise TypeError("LayerCall: Expected to be called while a graph is traced, as check_gradients does")
        name = self.config.get("name", snake_case(self.layer.__name__))
        layer = self.layer(**{**self.config, "name": name, "dtype": first.dtype.numpy_name})
        layer.build(map_leaves(lambda leaf: leaf.shape, self.x))
        for variable, weight in zip(layer.trainable_weights, self.weights, strict=True):
            trace.assign(variable, weight)
        return layer(self.x, training=self.training)


def layers(*kinds: type[Layer], dtype: str = "float32") -> Any:
    """Return the strategy of `LayerCall` for layers of the given classes, by default of all kinds that are known here.

        @gradient_property(call=layers(gl.layers.Dense, gl.layers.Conv2D))
        def every_layer(call):
            return call()

    Gradients are checked by the layer's input and by all of its trainable weights.
    """
    if others := [repr(kind) for kind in kinds if not isinstance(kind, type)]:
        raise TypeError(f"layers: Expected classes of layers. Received: {', '.join(others)}")
    unknown = [kind.__name__ for kind in kinds if kind not in _CASES]
    if unknown:
        known = ", ".join(sorted(kind.__name__ for kind in _CASES))
        raise ValueError(f"layers: Expected layers out of {known}. Received: {', '.join(unknown)}")
    st = import_hypothesis().strategies
    return st.sampled_from(kinds or tuple(_CASES)).flatmap(lambda kind: st.composite(_layer_call)(kind, dtype))


def _layer_call(draw: Draw, kind: type[Layer], dtype: str) -> LayerCall:
    config, shapes = _CASES[kind](draw)
    training = draw(import_hypothesis().strategies.booleans())
    probe = kind(**config)
    inputs: Any = [(None, *shape[1:]) for shape in shapes]
    probe.build(inputs if len(shapes) > 1 else inputs[0])
    x = [_array(draw, shape, dtype) for shape in shapes]
    weights = [_array(draw, variable.shape, dtype) for variable in probe.trainable_weights]
    return LayerCall(kind, config, x if len(x) > 1 else x[0], weights, training)


def _array(draw: Draw, shape: Sequence[int], dtype: str) -> np.ndarray:
    return tensor(*shape, dtype=dtype).draw_array(draw, tuple(shape))


Case = tuple[dict[str, Any], list[tuple[int, ...]]]
"""A layer's configuration, and the shapes of its inputs."""


def _shape(draw: Draw, least: int = 2, most: int = 4) -> tuple[int, ...]:
    st = import_hypothesis().strategies
    rank = draw(st.integers(least, most))
    return tuple(draw(st.integers(1, 3)) for _ in range(rank))


def _images(draw: Draw, least: int = 1) -> tuple[int, int, int, int]:
    st = import_hypothesis().strategies
    height, width = draw(st.integers(least, 5)), draw(st.integers(least, 5))
    return draw(st.integers(1, 2)), height, width, draw(st.integers(1, 2))


def _pick(draw: Draw, *options: Any) -> Any:
    return draw(import_hypothesis().strategies.sampled_from(options))


def _dense(draw: Draw) -> Case:
    config = {"units": _pick(draw, 1, 2, 3), "activation": _activation(draw), "use_bias": _pick(draw, True, False)}
    return config, [_shape(draw, 2, 3)]


def _activation(draw: Draw) -> str | None:
    return _pick(draw, None, "relu", "tanh", "softmax", "gelu", "leaky_relu")  # type: ignore[no-any-return]


def _convolution(draw: Draw) -> Case:
    strides = _pick(draw, 1, 2)
    config = {
        "filters": _pick(draw, 1, 2),
        "kernel_size": _pick(draw, 1, 2, (3, 2)),
        "strides": strides,
        "padding": _pick(draw, "valid", "same"),
        "dilation_rate": 1 if strides > 1 else _pick(draw, 1, 2),
        "activation": _activation(draw),
        "use_bias": _pick(draw, True, False),
    }
    return config, [_images(draw, 5)]


def _depthwise(draw: Draw) -> Case:
    config = {
        "kernel_size": _pick(draw, 1, 2, 3),
        "strides": _pick(draw, 1, 2),
        "padding": _pick(draw, "valid", "same"),
        "depth_multiplier": _pick(draw, 1, 2),
    }
    return config, [_images(draw, 3)]


def _batch_normalization(draw: Draw) -> Case:
    config = {"axis": _pick(draw, -1, 1), "center": _pick(draw, True, False), "scale": _pick(draw, True, False)}
    return config, [_shape(draw)]


def _pooling(draw: Draw) -> Case:
    config = {
        "pool_size": _pick(draw, 1, 2, (3, 2)),
        "strides": _pick(draw, None, 1, 2),
        "padding": _pick(draw, "valid", "same"),
    }
    return config, [_images(draw, 3)]


def _merged(draw: Draw) -> Case:
    shape = _shape(draw)
    return {}, [shape] * _pick(draw, 2, 3)


_CASES: dict[type[Layer], Callable[[Draw], Case]] = {
    all_layers.Dense: _dense,
    all_layers.Conv2D: _convolution,
    all_layers.DepthwiseConv2D: _depthwise,
    all_layers.BatchNormalization: _batch_normalization,
    all_layers.MaxPooling2D: _pooling,
    all_layers.AveragePooling2D: _pooling,
    all_layers.GlobalAveragePooling2D: lambda draw: ({}, [_images(draw)]),
    all_layers.GlobalMaxPooling2D: lambda draw: ({}, [_images(draw)]),
    all_layers.UpSampling2D: lambda draw: ({"size": _pick(draw, 1, 2, (2, 3))}, [_images(draw)]),
    all_layers.ZeroPadding2D: lambda draw: ({"padding": _pick(draw, 0, 1, (1, 2))}, [_images(draw)]),
    all_layers.Activation: lambda draw: ({"activation": _activation(draw)}, [_shape(draw)]),
    all_layers.ReLU: lambda draw: (
        {"max_value": _pick(draw, None, 1.0), "negative_slope": _pick(draw, 0.0, 0.25)},
        [_shape(draw)],
    ),
    all_layers.LeakyReLU: lambda draw: ({"negative_slope": _pick(draw, 0.0, 0.25)}, [_shape(draw)]),
    all_layers.Softmax: lambda draw: ({}, [_shape(draw)]),
    all_layers.Flatten: lambda draw: ({}, [_shape(draw)]),
    all_layers.Rescaling: lambda draw: ({"scale": 0.5, "offset": _pick(draw, 0.0, 1.0)}, [_shape(draw)]),
    all_layers.Add: _merged,
    all_layers.Average: _merged,
    all_layers.Concatenate: _merged,
    all_layers.Maximum: _merged,
    all_layers.Minimum: _merged,
    all_layers.Multiply: _merged,
    all_layers.Subtract: lambda draw: ({}, [_shape(draw)] * 2),
}
"""For each kind of layer how its configuration and its inputs' shapes are drawn."""
