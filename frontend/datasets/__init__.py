"""Data sets to train on: `fashion_mnist` (found on disk or downloaded) and `synthetic_fashion` (drawn by code)."""

from gradloom.datasets import fashion_mnist, synthetic_fashion

__all__ = ["fashion_mnist", "synthetic_fashion"]
