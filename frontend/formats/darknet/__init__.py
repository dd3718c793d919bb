"""Darknet's networks (pjreddie.com/darknet): its cfg and weights files, and images as it resizes them."""

from gradloom.formats.darknet.cfg import CfgError
from gradloom.formats.darknet.images import ImageError, letterbox, read_image, resize
from gradloom.formats.darknet.layers import BatchNormalization
from gradloom.formats.darknet.network import load
from gradloom.formats.darknet.weights import WeightsError, load_weights, save_weights

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
