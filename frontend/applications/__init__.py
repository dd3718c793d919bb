"""Networks that are known by name: `Darknet53`, and `Darknet`, the family it belongs to."""

from gradloom.applications.darknet53 import Darknet, Darknet53
from gradloom.applications.published import labels_file, weights_file

__all__ = ["Darknet", "Darknet53", "labels_file", "weights_file"]
