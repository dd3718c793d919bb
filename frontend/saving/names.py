"""The names under which files hold a model's variables: those of layers, each inside of another, then the variable's.

Automatic names of layers ("dense_7") count the layers of a session. In a file they are counted within their model, so
that a model that is made again, later or elsewhere, finds its weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gradloom.layers.contents import held_by_path
from gradloom.layers.layer import Layer
from gradloom.naming import distinct, snake_case
from gradloom.variables import Variable


def weight_names(model: Layer) -> dict[str, Variable]:
    """The weights by name: "dense/kernel", "encoder/dense_1/bias"."""
    return _unique((path, layer.own_weights) for path, layer in _walk(model, "", set()))


def state_names(model: Layer) -> dict[str, Variable]:
    """What layers keep and change besides their weights, by name: dropout's counters."""
    return _unique((path, layer.own_state) for path, layer in _walk(model, "", set()))


def layer_names(model: Layer) -> dict[str, Layer]:
    """The model and the layers inside of it by name, which is what their variables' names begin with."""
    return dict(_walk(model, "", set()))


def _walk(layer: Layer, path: str, seen: set[Layer]) -> Iterator[tuple[str, Layer]]:
    """A layer and all inside of it, each once, with what their variables' names begin with."""
    if layer in seen:
        return
    seen.add(layer)
    yield path, layer
    for name, inner in sublayer_names(layer).items():
        yield from _walk(inner, f"{path}{name}/", seen)


def sublayer_names(layer: Layer) -> dict[str, Layer]:
    """The layers inside of a layer: by their names in a model that lists them, else by the attributes they are."""
    listed = layer.listed_layers
    if listed is None:
        return held_by_path(layer.__dict__, Layer)
    return dict(zip(distinct(map(_lasting_name, listed)), listed, strict=True))


def _lasting_name(layer: Layer) -> str:
    """A layer's name without the number of an automatic one."""
    automatic = snake_case(type(layer).__name__)
    return automatic if re.fullmatch(rf"{re.escape(automatic)}(_\d+)?", layer.name) else layer.name


def _unique(variables: Iterator[tuple[str, list[Variable]]]) -> dict[str, Variable]:
    """Name variables below their layers' paths; one that two layers share has the first name."""
    names: dict[str, Variable] = {}
    seen: set[Variable] = set()
    for path, own in variables:
        for name, variable in zip(distinct(variable.name for variable in own), own, strict=True):
            if variable not in seen:
                names[path + name] = variable
                seen.add(variable)
    return names
