"""The pictures that the Fashion-MNIST example leaves: training curve and predictions, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")  # files only: works without a display

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

BLUE, RED, ORANGE, GREY, INK = "#2b6cb0", "#c53030", "#dd6b20", "#d5dae1", "#2d3748"
ROWS, COLUMNS = 5, 3
SHOWN = ROWS * COLUMNS
"""Test images in the picture of predictions: the first ones, not chosen ones."""

STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#a0aec0",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#718096",
    "ytick.color": "#718096",
    "savefig.dpi": 150,
}


def draw_training_curve(history: dict[str, list[float]], title: str, file: Path) -> None:
    """Draw loss and accuracy by epoch, on training and test images, as a PNG."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0), layout="constrained")
        figure.suptitle(title, fontsize=13, fontweight="bold")
        _draw_curves(left, history, "loss", "Loss")
        _draw_curves(right, history, "accuracy", "Accuracy")
        right.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
        # Below both panels, where it covers no point.
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        figure.savefig(file)
        plt.close(figure)


def _draw_curves(axes: Axes, history: dict[str, list[float]], key: str, label: str) -> None:
    epochs = np.arange(1, len(history[key]) + 1)
    for name, values, color, marker in (
        ("training", history[key], BLUE, "o"),
        ("validation (test images)", history[f"val_{key}"], ORANGE, "s"),
    ):
        style = {"color": color, "marker": marker, "markersize": 4.5, "linewidth": 2}
        axes.plot(epochs, values, **style, label=name, clip_on=False)
    if not np.isfinite([*history[key], *history[f"val_{key}"]]).any():
        axes.text(0.5, 0.5, "no finite number", transform=axes.transAxes, ha="center", color=RED)
    axes.set_title(label, loc="left", fontsize=11)
    axes.set_xlabel("Epoch")
    axes.set_xlim(0.7, len(epochs) + 0.3)
    # A single epoch has a single tick; by default there would be fractions between two.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    if key == "accuracy":
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, 0.0), min(top, 1.0))
    axes.grid(axis="y", color="#edf2f7")
    axes.set_axisbelow(True)


def draw_predictions(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    title: str,
    file: Path,
) -> None:
    """Draw test images, each beside a bar per class: the predicted one blue when right, red when wrong.

    images: u8[n, height, width]; labels: [n]; probabilities: [n, classes], with n at most `SHOWN`.
    """
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12.6, 11.6), layout="constrained")
        figure.suptitle(f"{title}\nthe first {len(images)} test images", fontsize=13, fontweight="bold")
        grid = figure.subplots(ROWS, 2 * COLUMNS, width_ratios=[1.0, 1.0] * COLUMNS)
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.08, rect=(0.01, 0.01, 0.98, 0.98))
        cells = grid.reshape(SHOWN, 2)
        for (left, right), image, label, row in zip(cells, images, labels, probabilities, strict=False):
            _draw_image(left, image, int(label), row, names)
            _draw_bars(right, int(label), row, names)
        for axes in cells[len(images) :].flat:
            axes.axis("off")
        figure.savefig(file)
        plt.close(figure)


def _draw_image(axes: Axes, image: np.ndarray, label: int, probabilities: np.ndarray, names: Sequence[str]) -> None:
    guess = int(np.argmax(probabilities))
    right = guess == label
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=GREY)
    caption = f"{names[guess]}, {probabilities[guess]:.0%}"
    axes.set_xlabel(caption, color=BLUE if right else RED, fontweight="bold")
    if not right:
        axes.set_title(f"is: {names[label]}", fontsize=9, color=INK, pad=3)


def _draw_bars(axes: Axes, label: int, probabilities: np.ndarray, names: Sequence[str]) -> None:
    guess = int(np.argmax(probabilities))
    colors = [GREY] * len(names)
    colors[label] = BLUE
    if guess != label:
        colors[guess] = RED
    axes.barh(np.arange(len(names)), probabilities, color=colors, height=0.72)
    axes.set(xlim=(0, 1), xticks=[], yticks=np.arange(len(names)))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, pad=2)
    for text, number in zip(axes.set_yticklabels(names, fontsize=7), range(len(names)), strict=True):
        if colors[number] != GREY:
            text.set(color=colors[number], fontweight="bold")
    axes.spines["bottom"].set_visible(False)
