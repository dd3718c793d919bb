"""From a cfg file, and a weights file, to a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gradloom.formats.darknet.plan import Plan, read_plan
from gradloom.formats.darknet.step import apply
from gradloom.formats.darknet.weights import load_weights, remember_layers
from gradloom.layers import Flatten, Input, Layer
from gradloom.model import Model


def load(cfg: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> Model:
    """Return the network of a Darknet cfg file, with the weights of a weights file or fresh ones.

    Its input is f32[batch, height, width, channels], for images RGB in [0, 1] (`read_image` and `letterbox`); its
    result is that of the last layer before a cost, f32[batch, n] where that is a vector. Layers are named as Darknet
    numbers them: `convolutional_0`, `shortcut_4`, the last one of a section by its section: `model.get_layer`.
    Settings that are about training with Darknet are read over.

    Raises `CfgError` naming file and line for a network that cannot work, `WeightsError` with expected and actual size
    for a file that is not of this network, before anything is loaded.
    """
    plan = read_plan(cfg)
    model, layers = _build(plan, _model_name(Path(cfg)))
    remember_layers(model, layers)
    if weights is not None:
        load_weights(model, weights)
    return model


def _build(plan: Plan, name: str) -> tuple[Model, list[Layer]]:
    """Return the model, and the layers of the whole file: also those that its result does not need."""
    source = Input((plan.source.height, plan.source.width, plan.source.channels), name="image")
    results: dict[int, Any] = {-1: source}
    all_layers: list[Layer] = []
    is_vector = plan.steps[plan.output].output.height == plan.steps[plan.output].output.width == 1
    for index, step in enumerate(plan.steps):
        inputs = [results[number] for number in step.inputs]
        layers = step.layers(f"{step.kind}_{index}")
        if index == plan.output and is_vector and step.kind == "softmax":
            # Before and not after it: a model that ends in its softmax trains on the logits.
            layers.insert(0, Flatten(name="flatten"))
            is_vector = False
        results[index] = apply(layers, inputs if step.reads_several else inputs[0])
        all_layers += layers
    output = results[plan.output]
    return Model(source, Flatten(name="flatten")(output) if is_vector else output, name=name), all_layers


def _model_name(cfg: Path) -> str:
    return cfg.stem.replace("/", "_") or "darknet"
