"""Say what images show, with Darknet53 or any other classifier of Darknet.

Run it as `python examples/darknet53/classify.py IMAGE…`, or with `--help`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gradloom as gl
from gradloom.applications.published import FileNotAvailableError
from gradloom.compiler.errors import GradloomError
from gradloom.formats import darknet

DEMO_NOTICE = """\
  ####################################################################
  ##  --demo-weights: these weights are RANDOM numbers. What they   ##
  ##  say about the images means NOTHING; they only show that the   ##
  ##  network runs, and how fast.                                   ##
  ####################################################################"""

RESIDUAL_SCALE = 0.3
"""Of the last normalization in each residual block of random weights: 23 blocks of scale 1 would double 23 times."""

BEST = 5


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Print the five classes that Darknet53 finds most likely for each image.",
        epilog="Images of any size are resized as Darknet does it: they keep their proportions, on a grey canvas.",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="JPEG, PNG or what else Pillow decodes")
    parser.add_argument("--cfg", type=Path, metavar="FILE", help="another network, as a Darknet cfg file")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--weights", type=Path, metavar="FILE", help="a Darknet weights file of the network; by "
                        "default the published one of Darknet53, from the cache or downloaded (167 MB)")  # fmt: skip
    source.add_argument("--demo-weights", action="store_true", help="random weights, always the same")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="names of the classes, a line each; by default "
                        "ImageNet's, from the cache or downloaded, or else numbers")  # fmt: skip
    parser.add_argument(
        "--size", type=int, default=256, help="height and width that Darknet53 is given; 256 by default"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the images with their bars, as PNG, PDF or SVG")
    parser.add_argument("--threads", type=int, help="by default all that the machine gives")
    chosen = parser.parse_args(arguments)
    if chosen.size < 1:
        parser.error(f"argument --size: Expected a number above 0. Received: {chosen.size}")
    if chosen.threads is not None and chosen.threads < 1:
        parser.error(f"argument --threads: Expected a number above 0. Received: {chosen.threads}")
    if chosen.cfg and not (chosen.weights or chosen.demo_weights):
        parser.error("--cfg needs --weights FILE (or --demo-weights): only Darknet53's own weights are published")
    return chosen


def load_model(arguments: argparse.Namespace) -> gl.Model:
    """Return the network with its weights."""
    if arguments.demo_weights:
        print(f"{DEMO_NOTICE}\n", flush=True)
        gl.utils.set_random_seed(0)
        model = darknet.load(arguments.cfg) if arguments.cfg else darknet53(arguments, None)
        tame_residuals(model)
        return model
    if arguments.cfg:
        return darknet.load(arguments.cfg, arguments.weights)
    return darknet53(arguments, arguments.weights or find_weights())


def darknet53(arguments: argparse.Namespace, weights: Path | None) -> gl.Model:
    """Return Darknet53, for as many classes as there are names if these and the weights are the user's own."""
    own = arguments.weights and arguments.labels
    classes = len(read_labels(arguments.labels)) if own else 1000
    return gl.applications.Darknet53(weights, input_shape=(arguments.size, arguments.size, 3), classes=classes)


def find_weights() -> Path:
    """Return the published weights; raise FileNotAvailableError that says what else to do."""
    try:
        return gl.applications.weights_file()
    except FileNotAvailableError as error:
        raise FileNotAvailableError(
            f"{error}\nor give a Darknet weights file with --weights FILE, or see the network run on random weights "
            "with --demo-weights"
        ) from error


def tame_residuals(model: gl.Model) -> None:
    """Let each residual block of a network with random weights add little to what it is given."""
    last = None
    for layer in model.layers:
        if isinstance(layer, darknet.BatchNormalization):
            last = layer
        elif type(layer).__name__ in ("Add", "Shortcut") and last is not None:
            last.scales.assign(np.full(last.scales.shape, RESIDUAL_SCALE, np.float32))


def find_labels(arguments: argparse.Namespace, classes: int) -> list[str]:
    """Return a name for each class."""
    if arguments.labels:
        names = read_labels(arguments.labels)
        if len(names) != classes:
            raise GradloomError(
                f"{arguments.labels}: Expected {classes} names, one for each class. Received: {len(names)}"
            )
        return names
    if classes == 1000:
        try:
            return read_labels(gl.applications.labels_file())
        except FileNotAvailableError as error:
            print(f"{error}\nClasses are shown by their numbers.\n", file=sys.stderr, flush=True)
    return [f"class {number}" for number in range(classes)]


def read_labels(file: Path) -> list[str]:
    """Return the lines of a file without those that are empty."""
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def classify(model: gl.Model, images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the probabilities f32[image, class] of images of any size."""
    _, height, width, channels = model.input_shape
    if channels != 3:
        raise GradloomError(f"Expected a network of images with 3 channels. Received: {channels} channels")
    boxed = (darknet.letterbox(image, height, width) for image in images)
    return np.concatenate([model.predict(image[np.newaxis], batch_size=1) for image in boxed])


def best_classes(probabilities: np.ndarray) -> np.ndarray:
    """Return the numbers of the most likely classes, the best one first."""
    return np.argsort(-probabilities, kind="stable")[:BEST]


def main(command_line: Sequence[str] | None = None) -> None:
    """Load, classify, print, draw."""
    arguments = parse_arguments(command_line)
    if arguments.threads:
        gl.set_num_threads(arguments.threads)
    # First the images: whoever mistypes a name need not wait for a download.
    images = [darknet.read_image(file) for file in arguments.images]
    model = load_model(arguments)
    probabilities = classify(model, images)
    if probabilities.ndim != 2:
        raise GradloomError(f"Expected a classifier. Received: a network whose result is {probabilities.shape[1:]}")
    labels = find_labels(arguments, probabilities.shape[1])
    for file, row in zip(arguments.images, probabilities, strict=True):
        print(f"{file}:")
        for number in best_classes(row):
            print(f"  {100 * row[number]:5.2f}%  {labels[number]}")
    if arguments.plot:
        draw(arguments, images, probabilities, labels)


def draw(
    arguments: argparse.Namespace, images: Sequence[np.ndarray], probabilities: np.ndarray, labels: Sequence[str]
) -> None:
    """Leave the picture and say where it is."""
    # Here and not above: matplotlib is an extra.
    import pictures

    rows: list[list[tuple[str, Any]]] = [
        [(labels[number], float(row[number])) for number in best_classes(row)] for row in probabilities
    ]
    arguments.plot.parent.mkdir(parents=True, exist_ok=True)
    title = "random weights: these guesses mean nothing" if arguments.demo_weights else ""
    pictures.draw_guesses(images, rows, title, arguments.plot)
    print(f"{arguments.plot}: the images with their best classes")


if __name__ == "__main__":
    try:
        main()
    except (GradloomError, OSError) as error:
        sys.exit(f"error: {error}")
