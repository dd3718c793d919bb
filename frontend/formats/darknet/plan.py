"""From the sections of a cfg file to a checked plan of the network: the size of its input, and its layers in order."""

from __future__ import annotations

import os
from dataclasses import dataclass

from gradloom.formats.darknet import cfg
from gradloom.formats.darknet.cfg import Section
from gradloom.formats.darknet.closing import Cost, Dropping, Softmax
from gradloom.formats.darknet.joining import Residual, Routing
from gradloom.formats.darknet.normalizing import LocalNormalizing
from gradloom.formats.darknet.spatial import Avgpool, Cropping, Maxpool, Upsampling
from gradloom.formats.darknet.step import COMMON_KEYS, MAX_MAP, Before, Map, Step
from gradloom.formats.darknet.weighted import Convolutional, FullyConnected
from gradloom.lookup import unknown_name

STEPS: dict[str, type[Step]] = {
    step.kind: step
    for step in (
        Avgpool,
        Convolutional,
        Cost,
        Cropping,
        Dropping,
        FullyConnected,
        LocalNormalizing,
        Maxpool,
        Residual,
        Routing,
        Softmax,
        Upsampling,
    )
}
"""The sections that are layers, by name."""

SHORT_NAMES = {
    "avg": "avgpool",
    "conn": "connected",
    "conv": "convolutional",
    "lrn": "normalization",
    "max": "maxpool",
    "network": "net",
    "soft": "softmax",
}
"""What Darknet also calls them."""

_SHAPE_KEYS = frozenset({"channels", "height", "inputs", "width"})
_TRAINING_KEYS = frozenset(
    """
    B1 B2 adam angle aspect batch burn_in center clip decay eps exposure gamma hue learning_rate
    max_batches max_crop max_ratio min_crop min_ratio momentum notruth policy power random saturation
    scale scales seen step steps subdivisions time_steps
    """.split()  # noqa: SIM905
)
"""How Darknet trains: of no meaning here, since `compile` and `fit` say it."""


@dataclass(frozen=True)
class Plan:
    """A network: the map it is given, its layers, and the number of the layer whose result is the network's."""

    source: Map
    steps: tuple[Step, ...]
    output: int


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a cfg file and check every section against the maps of those above it.

    Raises CfgError with the file and its line.
    """
    net, *sections = cfg.read(path)
    if SHORT_NAMES.get(net.kind, net.kind) != "net":
        raise net.error("Expected [net] as the first section. Received: another one")
    source = _source(net)
    steps: list[Step] = []
    for section in sections:
        steps.append(_step(section, Before(section, source, [step.output for step in steps])))
    computing = [index for index, step in enumerate(steps) if step.kind != "cost"]
    if not computing:
        raise net.error("Expected layers after it. Received: none that computes anything")
    return Plan(source, tuple(steps), computing[-1])


def _source(net: Section) -> Map:
    net.check_keys(_SHAPE_KEYS, without_meaning=_TRAINING_KEYS)
    source = Map(net.integer("height", low=1), net.integer("width", low=1), net.integer("channels", low=1))
    if net.integer("inputs", source.size) != source.size:
        raise net.error(
            f"Expected inputs as the product of height, width and channels, {source.size}. "
            f"Received: inputs={net.integer('inputs')}",
            "inputs",
        )
    return _countable(source, net)


def _step(section: Section, before: Before) -> Step:
    kind = SHORT_NAMES.get(section.kind, section.kind)
    if kind not in STEPS:
        raise section.error(unknown_name("section", kind, sorted(STEPS)))
    step = STEPS[kind]
    section.check_keys(step.keys | COMMON_KEYS)
    for key in ("dontload", "dontsave", "dontloadscales"):
        section.refuse_unless(key, "A layer whose weights a file holds in part")
    parsed = step.parse(section, before)
    _countable(parsed.output, section)
    return parsed


def _countable(result: Map, section: Section) -> Map:
    """The map; raise `CfgError` if Darknet could not count its numbers."""
    if result.size > MAX_MAP:
        raise section.error(f"Expected a map of at most {MAX_MAP} numbers. Received: one of {result}")
    return result
