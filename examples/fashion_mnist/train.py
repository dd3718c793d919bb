"""Train a small classifier on Fashion-MNIST, and leave pictures of what happened.

Run it as `make demo`, or `python examples/fashion_mnist/train.py --help`.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gradloom as gl
from gradloom.compiler.errors import GradloomError
from gradloom.compiler.llvm.target import Target
from gradloom.compiler.views import draw_svg, picture_of_network

STAND_IN = """\
  ######################################################################
  ##  These are NOT Fashion-MNIST pictures, but silhouettes drawn by  ##
  ##  code. They are far easier: an accuracy reached on them says     ##
  ##  NOTHING about Fashion-MNIST.                                    ##
  ######################################################################"""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train a 784-128-10 network on Fashion-MNIST; leave its training curve, predictions and graph.",
    )
    parser.add_argument(
        "--epochs", type=_positive(int), default=5, help="passes over the training images; by default %(default)s"
    )
    parser.add_argument(
        "--batch-size", type=_positive(int), default=32, help="images a training step; by default %(default)s"
    )
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default="adam", help="how weights follow gradients; by "
                        "default %(default)s")  # fmt: skip
    parser.add_argument("--learning-rate", type=_positive(float), help="step size; by default the optimizer's own")
    parser.add_argument(
        "--seed", type=_seed, default=0, help="of first weights and the order of images; by default %(default)s"
    )
    parser.add_argument("--threads", type=_positive(int), help="by default all that the machine gives; results do "
                        "not depend on it")  # fmt: skip
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder with the four IDX files, to be tried first")
    parser.add_argument("--synthetic", action="store_true", help="train on drawn silhouettes without looking for files")
    parser.add_argument("--output", type=_output_folder, default="out/fashion_mnist", metavar="FOLDER", help="for the "
                        "pictures; by default %(default)s")  # fmt: skip
    return parser.parse_args(arguments)


def check_environment() -> None:
    """Raise an error for variables that Gradloom cannot follow: before a download and not after it."""
    gl.get_num_threads()
    Target.host()


def load_images(arguments: argparse.Namespace) -> tuple[Any, bool]:
    """Return the training and test images with labels, and whether they are Fashion-MNIST's."""
    if not arguments.synthetic:
        try:
            return gl.datasets.fashion_mnist.load_data(arguments.data), True
        except gl.datasets.fashion_mnist.DataNotFoundError as error:
            print(f"{error}\n", file=sys.stderr, flush=True)
    print(f"{STAND_IN}\n", flush=True)
    return gl.datasets.synthetic_fashion.load_data(), False


def make_model(optimizer: Any = "adam") -> gl.Sequential:
    """The network of most first tutorials, with one hidden layer, ready to be trained."""
    model = gl.Sequential(
        [
            gl.layers.Flatten(input_shape=(28, 28)),
            gl.layers.Dense(128, activation="relu"),
            gl.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def make_optimizer(name: str, learning_rate: float | None) -> Any:
    """The optimizer, with its own default learning rate unless another is given."""
    kind = {"adam": gl.optimizers.Adam, "sgd": gl.optimizers.SGD}[name]
    return kind() if learning_rate is None else kind(learning_rate=learning_rate)


class EpochTimer(gl.callbacks.Callback):
    """Takes the time of each epoch's training steps, without its validation."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self.seconds.append(-time.perf_counter())

    def on_test_begin(self, logs: Any = None) -> None:
        """Stop it: the steps are done, validation begins."""
        if self.seconds and self.seconds[-1] < 0:
            self.seconds[-1] += time.perf_counter()


def main(command_line: Sequence[str] | None = None) -> None:
    """Load, train, evaluate, draw."""
    arguments = parse_arguments(command_line)
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit("error: Expected matplotlib, which draws the pictures. It comes with: pip install -e '.[examples]'")
    check_environment()
    if arguments.threads:
        gl.set_num_threads(arguments.threads)
    gl.utils.set_random_seed(arguments.seed)

    ((x, y), (x_test, y_test)), real = load_images(arguments)
    print(f"{len(x)} training images, {len(x_test)} test images\n", flush=True)

    model = make_model(make_optimizer(arguments.optimizer, arguments.learning_rate))
    model.summary()

    timer = EpochTimer()
    history = model.fit(
        x / 255.0,
        y,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        validation_data=(x_test / 255.0, y_test),
        callbacks=[timer],
    )
    _, accuracy = model.evaluate(x_test / 255.0, y_test, verbose=0)

    if not all(map(math.isfinite, history.history["loss"])):
        print("\nThe loss is no finite number: training diverged. Try a lower --learning-rate.", file=sys.stderr)

    source = "Fashion-MNIST" if real else "drawn silhouettes (not Fashion-MNIST)"
    title = f"{source}: test accuracy {accuracy:.1%}"
    draw_pictures(arguments.output, model, history.history, x_test, y_test, title, min(arguments.batch_size, len(x)))

    # The first epoch may have compiled the step, so the median of the epochs is the time to expect.
    each = float(np.median(timer.seconds)) / len(x)
    print(f"\ntraining: {each * 1e6:.2f} µs per sample, at batch size {arguments.batch_size}")
    if not real:
        print(f"\n{STAND_IN}")
    print(f"test accuracy: {accuracy:.4f}", flush=True)


def draw_pictures(
    out: Path,
    model: Any,
    history: dict[str, list[float]],
    x_test: np.ndarray,
    y_test: np.ndarray,
    title: str,
    batch_size: int,
) -> None:
    """Leave the pictures in the output folder and say where they are."""
    # Here and not above: matplotlib is an extra, and takes longer to load than the network to train.
    import pictures

    out.mkdir(parents=True, exist_ok=True)
    shown = min(pictures.SHOWN, len(x_test))
    probabilities = model.predict(x_test[:shown] / 255.0, verbose=0)
    names = gl.datasets.fashion_mnist.CLASS_NAMES
    pictures.draw_training_curve(history, title, out / "training_curve.png")
    pictures.draw_predictions(x_test[:shown], y_test[:shown], probabilities, names, title, out / "predictions.png")
    (out / "train_step.svg").write_text(drawn_step(model, batch_size), encoding="utf-8")
    print()
    for name, what in (
        ("training_curve.png", "loss and accuracy by epoch"),
        ("predictions.png", "test images with what the network takes them for"),
        ("train_step.svg", "the train step as the compiler fused it, a box for each kernel"),
    ):
        print(f"{out / name}: {what}")


def drawn_step(model: Any, batch_size: int) -> str:
    """Draw the kernels of a train step, and what goes from one to the next.

    What the optimizer and the metrics keep between steps would make the drawing three times as wide.
    """
    network = model.inspect(batch_size=batch_size, mode="train").stages["scheduled"].networkx()
    kept_between = ("state", "hyperparameter", "output")
    network.remove_nodes_from([node for node, data in network.nodes(data=True) if data["role"] in kept_between])
    return draw_svg(picture_of_network(network))


def _positive(kind: type[int] | type[float]) -> Any:
    """A number type for argparse that refuses what is not above zero."""

    def parse(text: str) -> float:
        number = kind(text)
        if not 0 < number < float("inf"):
            raise argparse.ArgumentTypeError(f"Expected a number above 0. Received: {text}")
        return number

    parse.__name__ = kind.__name__
    return parse


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"Expected a number from 0 to {2**32 - 1}. Received: {text}")
    return number


def _output_folder(text: str) -> Path:
    """A folder that can be written into, or made: checked before the training and not after it."""
    folder = place = Path(text)
    while not place.exists() and place != place.parent:
        place = place.parent
    if not text or not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"Expected a folder to write into. Received: {text!r}")
    return folder


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except (GradloomError, OSError) as error:
        sys.exit(f"error: {error}")
