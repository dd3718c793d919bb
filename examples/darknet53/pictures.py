"""The pictures of the Darknet53 examples: images with their best classes, and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")  # files only: works without a display

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

BLUE, ORANGE, INK, PALE = "#2b6cb0", "#dd6b20", "#2d3748", "#edf2f7"
STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#a0aec0",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 150,
}


MOST_GUESSES = 50
"""Images in one picture: more would make it larger than picture formats allow."""


def draw_guesses(
    names: Sequence[str],
    images: Sequence[np.ndarray],
    guesses: Sequence[Sequence[tuple[str, float]]],
    title: str,
    file: Path,
) -> int:
    """Draw each image below its name, beside bars of its best classes; return how many were drawn.

    images: f32[height, width, 3] in [0, 1]; guesses: for each image classes with their probabilities, best first.
    All bars have one scale, so that a sure guess looks like one.
    """
    rows = min(len(images), MOST_GUESSES)
    longest = max((share for row in guesses[:rows] for _, share in row if np.isfinite(share)), default=1.0)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(9.0, 2.9 * rows + (0.4 if title else 0)), layout="constrained")
        if title:
            figure.suptitle(title, fontweight="bold")
        grid = figure.subplots(rows, 2, squeeze=False, width_ratios=[1.0, 1.3])
        for (left, right), name, image, row in zip(grid, names, images, guesses, strict=False):
            left.imshow(image)
            left.axis("off")
            left.set_title(_shortened(name), fontsize=9)
            labels, shares = [label for label, _ in row], [share for _, share in row]
            bars = right.barh(np.arange(len(row)), shares, color=BLUE, height=0.66)
            right.bar_label(bars, [f"{share:.2%}" for share in shares], padding=4)
            right.set(xlim=(0, 1.18 * max(longest, 1e-3)), yticks=np.arange(len(row)), yticklabels=labels)
            right.xaxis.set_major_formatter(PercentFormatter(1.0))
            right.xaxis.set_major_locator(MaxNLocator(nbins=5))
            right.grid(axis="x", color=PALE)
            right.set_axisbelow(True)
            right.invert_yaxis()
            right.tick_params(axis="y", length=0)
        figure.savefig(file)
        plt.close(figure)
    return rows


def _shortened(name: str, longest: int = 48) -> str:
    """A file's name, of a long one the end; without what matplotlib would take for a formula."""
    name = name if len(name) <= longest else f"…{name[1 - longest :]}"
    return name.replace("$", r"\$")


def draw_history(history: Sequence[Mapping[str, float]], file: Path) -> None:
    """Draw loss and accuracies by epoch, for training and validation."""
    panels = [("loss", "Loss"), ("accuracy", "Top-1 accuracy"), ("top_5", "Top-5 accuracy")]
    panels = [(key, label) for key, label in panels if all(key in epoch for epoch in history)]
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(1, len(panels), figsize=(3.7 * len(panels), 3.6), layout="constrained")
        for axes, (key, label) in zip(grid, panels, strict=True):
            draw_curve(axes, history, key, label)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        figure.savefig(file)
        plt.close(figure)


def draw_curve(axes: Axes, history: Sequence[Mapping[str, float]], key: str, label: str) -> None:
    """Draw one figure of training and validation by epoch; shares end at 1."""
    epochs = np.arange(1, len(history) + 1)
    for name, kind, color in ((key, "training", BLUE), (f"val_{key}", "validation", ORANGE)):
        if all(name in epoch for epoch in history):
            values = [epoch[name] for epoch in history]
            axes.plot(epochs, values, color=color, marker="o", markersize=4, linewidth=2, label=kind, clip_on=False)
    axes.set_title(label, loc="left", fontsize=11)
    axes.set_xlabel("Epoch")
    axes.set_xlim(0.7, len(epochs) + 0.3)
    # A single epoch has a single tick; by default there would be fractions between two.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    if key != "loss":
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, 0.0), min(top, 1.0))
    axes.grid(axis="y", color=PALE)
