"""Darknet's networks (pjreddie.com/darknet): its cfg and weights files, and images as it resizes them.

Names are loaded when they are first used: a network that is written in Python needs no reader of cfg files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradloom.formats.darknet.cfg import CfgError
    from gradloom.formats.darknet.images import ImageError, letterbox, read_image, resize
    from gradloom.formats.darknet.layers import BatchNormalization
    from gradloom.formats.darknet.network import load
    from gradloom.formats.darknet.weights import WeightsError, load_weights, save_weights

_HOMES = {
    "BatchNormalization": "layers",
    "CfgError": "cfg",
    "ImageError": "images",
    "WeightsError": "weights",
    "letterbox": "images",
    "load": "network",
    "load_weights": "weights",
    "read_image": "images",
    "resize": "images",
    "save_weights": "weights",
}

__all__ = [
    "BatchNormalization",
    "CfgError",
    "ImageError",
    "WeightsError",
    "letterbox",
    "load",
    "load_weights",
    "read_image",
    "resize",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
