"""Say what images show, with Darknet53 or any other classifier of Darknet.

Run it as `python examples/darknet53/classify.py IMAGE…`, or with `--help`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import command_line
import gradloom as gl
from gradloom.applications.published import FileNotAvailableError
from gradloom.compiler.errors import GradloomError
from gradloom.formats import darknet

DEMO_NOTICE = """\
  ##################################################################
  ##  --demo-weights: these weights are RANDOM numbers. What they   ##
  ##  say about the images means NOTHING; they only show that the   ##
  ##  network runs, and how fast.                                   ##
  ##################################################################"""

RESIDUAL_SCALE = 0.3
"""Of the last normalization in each residual block of random weights: 23 blocks of scale 1 would double 23 times."""

BEST = 5
DEFAULT_SIZE = 256


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Print the five classes that Darknet53 finds most likely for each image.",
        epilog="Images of any size are resized as Darknet does it: they keep their proportions, on a grey canvas. "
        "The exit code is 1 if one of the files is no image; the others are classified.",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="JPEG, PNG or what else Pillow decodes")
    parser.add_argument("--cfg", type=Path, metavar="FILE", help="another network, as a Darknet cfg file, for example "
                        "the network.cfg that train.py leaves")  # fmt: skip
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--weights", type=Path, metavar="FILE", help="a Darknet weights file of the network; by "
                        "default the published one of Darknet53, downloaded once (167 MB)")  # fmt: skip
    source.add_argument("--demo-weights", action="store_true", help="random weights, always the same")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="names of the classes, a line each; by default "
                        "ImageNet's, downloaded once, or else numbers")  # fmt: skip
    parser.add_argument("--size", type=command_line.integer(1), help="height and width that Darknet53 is given; "
                        f"{DEFAULT_SIZE} by default. A cfg file says its own")  # fmt: skip
    parser.add_argument("--plot", type=command_line.picture, metavar="FILE", help="draw the images, as the network "
                        "gets them, with bars of their best classes, as PNG, PDF or SVG")  # fmt: skip
    parser.add_argument("--threads", type=command_line.integer(1), help="by default all that the machine gives")
    chosen = parser.parse_args(arguments)
    if chosen.cfg and not (chosen.weights or chosen.demo_weights):
        parser.error("--cfg needs --weights FILE (or --demo-weights): only Darknet53's own weights are published")
    if chosen.cfg and chosen.size:
        parser.error("Expected --size or --cfg. Received: both, but a cfg file says the size of its images")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Load, classify, print, draw."""
    options = parse_arguments(arguments)
    if options.plot:
        import pictures  # here and not above: matplotlib is an extra
    command_line.check_environment()
    if options.threads:
        gl.set_num_threads(options.threads)
    gl.utils.set_random_seed(0)

    # Names and images come first: whoever mistypes one need not wait for a download.
    labels = read_labels(options.labels) if options.labels else None
    model = darknet.load(options.cfg) if options.cfg else None
    files, images = read_images(options.images, *image_size(options, model))
    if files:
        model = with_weights(options, model, labels)
        labels = check_labels(options, labels or published_labels(model), model)
        probabilities = classify(model, images)
        print_guesses(files, probabilities, labels)
        if options.plot:
            options.plot.parent.mkdir(parents=True, exist_ok=True)
            rows = [[(labels[number], float(row[number])) for number in best_classes(row)] for row in probabilities]
            title = "random weights: these guesses mean nothing" if options.demo_weights else ""
            shown = pictures.draw_guesses([str(file) for file in files], images, rows, title, options.plot)
            which = "images" if shown == len(files) else f"first {shown} images"
            print(f"{options.plot}: the {which} with their best classes")
    if len(files) < len(options.images):
        sys.exit(1)


def image_size(options: argparse.Namespace, model: gl.Model | None) -> tuple[int, int]:
    """Return height and width of the network's images."""
    if model is None:
        return (options.size or DEFAULT_SIZE,) * 2
    if len(model.input_shape) != 4 or model.input_shape[-1] != 3:
        received = " × ".join(map(str, model.input_shape[1:]))
        raise GradloomError(f"{options.cfg}: Expected a network of images with 3 channels. Received: {received}")
    _, height, width, _ = model.input_shape
    return height, width


def read_images(candidates: Sequence[Path], height: int, width: int) -> tuple[list[Path], list[np.ndarray]]:
    """Return the files that are images, and these on the network's canvas; say which are none."""
    files, images = [], []
    for file in candidates:
        try:
            images.append(darknet.letterbox(darknet.read_image(file), height, width))
            files.append(file)
        except (darknet.ImageError, OSError) as error:
            print(f"error: {command_line.describe(error)}", file=sys.stderr, flush=True)
    return files, images


def with_weights(options: argparse.Namespace, model: gl.Model | None, labels: Sequence[str] | None) -> gl.Model:
    """Return the network of the cfg file, or Darknet53, with the weights that were asked for."""
    weights = None if options.demo_weights else options.weights or find_weights()
    if model is None:
        shape = *image_size(options, None), 3
        # Weights of the user's own are for as many classes as there are names.
        classes = len(labels) if labels and options.weights else 1000
        model = gl.applications.Darknet53(weights, input_shape=shape, classes=classes)
    elif weights:
        darknet.load_weights(model, weights)
    if options.demo_weights:
        print(f"{DEMO_NOTICE}\n", flush=True)
        tame_residuals(model)
    if len(model.output_shape) != 2:
        raise GradloomError(f"Expected a classifier. Received: a network whose result is {model.output_shape[1:]}")
    return model


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


def published_labels(model: gl.Model) -> list[str]:
    """Return the names of ImageNet's classes if they may be meant and are within reach, else numbers."""
    classes = model.output_shape[1]
    if classes == 1000:
        try:
            return read_labels(gl.applications.labels_file())
        except FileNotAvailableError as error:
            print(f"{error}\nClasses are shown by their numbers.\n", file=sys.stderr, flush=True)
    return [f"class {number}" for number in range(classes)]


def read_labels(file: Path) -> list[str]:
    """Return the lines of a file without those that are empty."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise GradloomError(
            f"{file}: Expected a text file with the name of a class in each line. Received: {error.reason} "
            f"at byte {error.start}"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def check_labels(options: argparse.Namespace, labels: list[str], model: gl.Model) -> list[str]:
    """Return the names if there is one for each class, else raise GradloomError."""
    classes = model.output_shape[1]
    if len(labels) != classes:
        source = options.labels or "names of ImageNet's classes"
        raise GradloomError(f"{source}: Expected {classes} names, one for each class. Received: {len(labels)}")
    return labels


def classify(model: gl.Model, images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the probabilities f32[image, class], and tell the time that they took."""
    height, width, _ = images[0].shape
    print(f"compiling {model.name} for {height}×{width} images …", file=sys.stderr, flush=True)
    started = time.perf_counter()
    # Compiles, or loads what was compiled before; and lays out the weights.
    model.predict(np.zeros_like(images[:1]), batch_size=1)
    compiled = time.perf_counter()
    probabilities = np.concatenate([model.predict(image[np.newaxis], batch_size=1) for image in images])
    each = (time.perf_counter() - compiled) / len(images)
    print(f"ready in {compiled - started:.1f} s; {1e3 * each:.1f} ms an image\n", file=sys.stderr, flush=True)
    return probabilities


def print_guesses(files: Sequence[Path], probabilities: np.ndarray, labels: Sequence[str]) -> None:
    """Print the best classes of each image."""
    for file, row in zip(files, probabilities, strict=True):
        print(f"{file}:")
        for number in best_classes(row):
            print(f"  {100 * row[number]:5.2f}%  {labels[number]}")


def best_classes(probabilities: np.ndarray) -> np.ndarray:
    """Return the numbers of the most likely classes, the best one first."""
    return np.argsort(-probabilities, kind="stable")[:BEST]


if __name__ == "__main__":
    command_line.run(main)
