"""The pictures of the Darknet53 examples: images with their best classes, and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")  # files only: works without a display

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, INK = "#2b6cb0", "#dd6b20", "#2d3748"
STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#a0aec0",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 150,
}


def draw_guesses(
    images: Sequence[np.ndarray], guesses: Sequence[Sequence[tuple[str, float]]], title: str, file: Path
) -> None:
    """Draw each image beside bars of its best classes.

    images: f32[height, width, 3] in [0, 1]; guesses: for each image names with their probabilities, best first.
    """
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(9.0, 2.9 * len(images) + (0.4 if title else 0)), layout="constrained")
        if title:
            figure.suptitle(title, fontweight="bold")
        grid = figure.subplots(len(images), 2, squeeze=False, width_ratios=[1.0, 1.3])
        for (left, right), image, row in zip(grid, images, guesses, strict=True):
            left.imshow(image)
            left.axis("off")
            names, shares = [name for name, _ in row], [share for _, share in row]
            bars = right.barh(np.arange(len(row)), shares, color=BLUE, height=0.66)
            right.bar_label(bars, [f"{share:.2%}" for share in shares], padding=4)
            right.set(xlim=(0, 1.15 * max(shares)), xticks=[], yticks=np.arange(len(row)), yticklabels=names)
            right.invert_yaxis()
            right.tick_params(axis="y", length=0)
            right.spines["bottom"].set_visible(False)
        figure.savefig(file)
        plt.close(figure)


def draw_history(history: Sequence[Mapping[str, float]], file: Path) -> None:
    """Draw loss and accuracies by epoch, for training and validation."""
    panels = [("loss", "Loss"), ("accuracy", "Top-1 accuracy"), ("top_5", "Top-5 accuracy")]
    epochs = np.arange(1, len(history) + 1)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(1, len(panels), figsize=(11.0, 3.4), layout="constrained")
        for axes, (key, label) in zip(grid, panels, strict=True):
            for name, color in ((key, BLUE), (f"val_{key}", ORANGE)):
                if all(name in epoch for epoch in history):
                    kind = "validation" if name.startswith("val_") else "training"
                    values = [epoch[name] for epoch in history]
                    axes.plot(epochs, values, color=color, marker="o", markersize=4, linewidth=2, label=kind)
            axes.set_title(label, loc="left", fontsize=11)
            axes.set_xlabel("Epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            axes.grid(axis="y", color="#edf2f7")
        grid[0].legend(frameon=False)
        figure.savefig(file)
        plt.close(figure)
