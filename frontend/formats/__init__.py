"""File formats of other frameworks: `darknet` reads and writes Darknet's networks."""

from gradloom.formats import darknet

__all__ = ["darknet"]
