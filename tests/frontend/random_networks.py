"""A strategy for small functional models: branches, shared and nested layers, functions, several inputs and outputs."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

import gradloom as gl

WIDTHS = st.integers(1, 4)
FUNCTIONS: list[Any] = [
    lambda x: x * 2.0 + 1.0,
    lambda x: 1.0 - x,
    lambda x: gl.ops.tanh(x),
    lambda x: x[:, ::-1],
    lambda x: gl.ops.concatenate([x, x[:, :1]], axis=-1),
    lambda x: gl.ops.maximum(x, 0.5),
]


@st.composite
def networks(draw: st.DrawFn) -> gl.Model:
    """A model of vectors, with up to two inputs and outputs, in lists or dicts."""
    gl.utils.clear_session()
    inputs = [gl.Input((draw(WIDTHS),)) for _ in range(draw(st.integers(1, 2)))]
    known: list[Any] = list(inputs)
    layers: list[tuple[int, gl.Layer]] = []
    for _ in range(draw(st.integers(1, 5))):
        x = draw(st.sampled_from(known))
        kind = draw(st.sampled_from(["layer", "layer", "shared", "function", "merge", "nested"]))
        if kind == "layer":
            layer = draw(vector_layers())
            layers.append((x.shape[-1], layer))
            known.append(layer(x))
        elif kind == "shared":
            known += [layer(x) for width, layer in layers[:1] if width == x.shape[-1]]
        elif kind == "function":
            known.append(draw(st.sampled_from(FUNCTIONS))(x))
        elif kind == "merge":
            fitting = [other for other in known if other.shape == x.shape]
            merge = draw(st.sampled_from([gl.layers.Add, gl.layers.Multiply, gl.layers.Maximum, gl.layers.Concatenate]))
            known.append(merge()([x, draw(st.sampled_from(fitting))]))
        else:
            known.append(draw(nested(x.shape[-1]))(x))
    ends = [known[-1]] if len(inputs) == 1 else [known[-1], draw(st.sampled_from(known[len(inputs) :] or known))]
    # Every input is of use: the outputs need them all.
    outputs = [gl.layers.Dense(2)(end) for end in ends]
    outputs[0] = gl.layers.Add()([outputs[0], *(gl.layers.Dense(2)(x) for x in inputs)])
    if len(inputs) == 1:
        return gl.Model(inputs[0], outputs[0])
    if draw(st.booleans()):
        return gl.Model({"left": inputs[0], "right": inputs[1]}, {"one": outputs[0], "two": outputs[1]})
    return gl.Model(inputs, outputs)


@st.composite
def vector_layers(draw: st.DrawFn) -> gl.Layer:
    """A layer that takes vectors of any length."""
    name = draw(st.sampled_from([None, None, f"layer_{draw(st.integers(0, 10**9))}"]))
    activation = draw(st.sampled_from([None, "relu", "tanh", gl.activations.sigmoid]))
    return draw(
        st.sampled_from(
            [
                gl.layers.Dense(draw(WIDTHS), activation=activation, use_bias=draw(st.booleans()), name=name),
                gl.layers.Dense(3, kernel_initializer=gl.initializers.Constant(0.25), trainable=False, name=name),
                gl.layers.BatchNormalization(center=draw(st.booleans()), scale=draw(st.booleans()), name=name),
                gl.layers.Dropout(0.25, name=name),
                gl.layers.Activation("softplus", name=name),
                gl.layers.LeakyReLU(0.125, name=name),
                gl.layers.Rescaling([0.5], 1.0, name=name),
            ]
        )
    )


@st.composite
def nested(draw: st.DrawFn, width: int) -> gl.Model:
    """A model that is a layer of another one."""
    layers = draw(st.lists(vector_layers(), min_size=1, max_size=2, unique_by=lambda layer: layer.name))
    if draw(st.booleans()):
        return gl.Sequential([gl.Input((width,)), *layers])
    x = inputs = gl.Input((width,))
    for layer in layers:
        x = layer(x)
    return gl.Model(inputs, x if draw(st.booleans()) else x * 0.5)
