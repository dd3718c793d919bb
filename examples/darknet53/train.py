"""Train Darknet53, or a small network of its family, on a folder of images.

Run it as `python examples/darknet53/train.py DIR`, or with `--help`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import checkpoint
import gradloom as gl
import image_folder
from gradloom.compiler.errors import GradloomError
from gradloom.formats import darknet

SMALL_STAGES = ((32, 1), (64, 1), (128, 1))
"""Filters and residual blocks of the small network."""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train on a folder with one subfolder of images for each class. After every epoch a checkpoint is "
        "left, from which --resume goes on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="the folder of images")
    parser.add_argument("--synthetic", type=_positive(int), nargs="?", const=240, metavar="N",
                        help="train on N drawn figures instead")  # fmt: skip
    parser.add_argument("--network", choices=("darknet53", "small"), default="darknet53", help="which one to train")
    parser.add_argument("--size", type=_positive(int), default=256, help="height and width that images are brought to")
    parser.add_argument("--epochs", type=_positive(int), default=10, help="passes over the training images, in all")
    parser.add_argument("--batch-size", type=_positive(int), default=8, help="images a training step")
    parser.add_argument("--learning-rate", type=_positive(float), default=0.01, help="of the first step")
    parser.add_argument("--power", type=_positive(float), default=4.0, help="with which it falls to 0: polynomially")
    parser.add_argument("--momentum", type=float, default=0.9, help="how much of a step the next one keeps")
    parser.add_argument("--weight-decay", type=float, default=0.0005, help="how fast weights shrink by themselves")
    parser.add_argument("--validation-split", type=float, default=0.2, help="share of images to validate with")
    parser.add_argument("--seed", type=int, default=0, help="of first weights, split and order of images")
    parser.add_argument("--threads", type=_positive(int), help="None lets Gradloom choose; results do not depend on it")
    parser.add_argument("--out", type=Path, default=Path("out/darknet53"), metavar="DIR", help="for what is left")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    chosen = parser.parse_args(arguments)
    if (chosen.folder is None) == (chosen.synthetic is None):
        parser.error("Expected a folder of images or --synthetic, one of them")
    if not 0 <= chosen.validation_split < 1:
        parser.error(f"argument --validation-split: Expected a share in [0, 1). Received: {chosen.validation_split}")
    return chosen


def load_images(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return images, labels and class names, in an order that mixes the classes."""
    if arguments.synthetic:
        x, y, names = image_folder.draw_figures(arguments.synthetic, arguments.size, arguments.seed)
    else:
        x, y, names = image_folder.load_folder(arguments.folder, arguments.size)
    order = np.random.default_rng(arguments.seed).permutation(len(x))
    return x[order], y[order], names


def make_network(arguments: argparse.Namespace, classes: int) -> gl.Model:
    """The network that is trained, for images in [0, 1]."""
    shape = (arguments.size, arguments.size, 3)
    if arguments.network == "darknet53":
        return gl.applications.Darknet53(input_shape=shape, classes=classes)
    return gl.applications.Darknet(SMALL_STAGES, 16, input_shape=shape, classes=classes, name="small")


def make_model(arguments: argparse.Namespace, network: gl.Model, steps: int, classes: int) -> gl.Model:
    """The network for images of bytes, ready to be trained."""
    image = gl.Input((arguments.size, arguments.size, 3), dtype="uint8", name="bytes")
    model = gl.Model(image, network(gl.layers.Rescaling(1 / 255)(image)), name="trained")
    schedule = gl.optimizers.schedules.PolynomialDecay(
        arguments.learning_rate, decay_steps=steps, end_learning_rate=0.0, power=arguments.power
    )
    model.compile(
        optimizer=gl.optimizers.SGD(schedule, momentum=arguments.momentum, weight_decay=arguments.weight_decay),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", gl.metrics.SparseTopKCategoricalAccuracy(k=min(5, classes), name="top_5")],
    )
    return model


class Progress(gl.callbacks.ProgbarLogger):
    """Shows the epoch's number out of all, though `fit` is called for one at a time."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Take the number of all epochs for that of this call."""
        super().set_params({**params, "epochs": self._epochs})


def main(command_line: Sequence[str] | None = None) -> None:
    """Load, train, leave checkpoints, weights and pictures."""
    arguments = parse_arguments(command_line)
    if arguments.threads:
        gl.set_num_threads(arguments.threads)
    gl.utils.set_random_seed(arguments.seed)

    x, y, names = load_images(arguments)
    kept = len(x) - round(len(x) * arguments.validation_split)
    if not 0 < kept <= len(x):
        raise GradloomError(f"Expected images to train on. Received: {len(x)}, {len(x) - kept} of them to validate")
    print(f"{kept} training images, {len(x) - kept} validation images, {len(names)} classes\n", flush=True)

    network = make_network(arguments, len(names))
    steps = arguments.epochs * -(-kept // arguments.batch_size)
    model = make_model(arguments, network, steps, len(names))
    history = train(arguments, model, (x[:kept], y[:kept]), (x[kept:], y[kept:]), names)

    arguments.out.mkdir(parents=True, exist_ok=True)
    darknet.save_weights(network, arguments.out / "network.weights")
    (arguments.out / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    draw(arguments, history)
    last = {name: value for name, value in history[-1].items() if "accuracy" in name or "top_5" in name}
    print(", ".join(f"{name}: {value:.4f}" for name, value in last.items()), flush=True)


def train(
    arguments: argparse.Namespace,
    model: gl.Model,
    training: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    names: list[str],
) -> checkpoint.Epochs:
    """Train the epochs that are left; return the figures of all of them."""
    options = ("network", "size", "epochs", "batch_size", "learning_rate", "power", "momentum", "weight_decay", "seed")
    settings = {option: getattr(arguments, option) for option in options}
    settings |= {"classes": names, "training images": len(training[0])}
    file = arguments.out / "checkpoint.npz"
    history = checkpoint.restore(file, model, settings) if arguments.resume else []
    arguments.out.mkdir(parents=True, exist_ok=True)
    for epoch in range(len(history), arguments.epochs):
        # Each epoch has a seed of its own: a resumed training sees the images in the order of one that never stopped.
        gl.utils.set_random_seed((arguments.seed + 1 + epoch) % 2**32)
        figures = model.fit(
            *training,
            batch_size=arguments.batch_size,
            initial_epoch=epoch,
            epochs=epoch + 1,
            validation_data=validation if len(validation[0]) else None,
            callbacks=[Progress(arguments.epochs)],
            verbose=0,
        )
        history.append({name: values[-1] for name, values in figures.history.items()})
        checkpoint.save(file, model, settings, history)
    return history


def draw(arguments: argparse.Namespace, history: checkpoint.Epochs) -> None:
    """Leave the training curves, and say what else there is."""
    # Here and not above: matplotlib is an extra.
    import pictures

    pictures.draw_history(history, arguments.out / "training_curve.png")
    print()
    for name, what in (
        ("training_curve.png", "loss and accuracies by epoch"),
        ("checkpoint.npz", "the state after the last epoch, for --resume"),
        ("network.weights", "the weights, as a file that Darknet reads"),
        ("classes.txt", "the names of the classes, for classify.py --labels"),
    ):
        print(f"{arguments.out / name}: {what}")


def _positive(kind: type[int] | type[float]) -> Any:
    """A number type for argparse that refuses what is not above zero."""

    def parse(text: str) -> float:
        number = kind(text)
        if not 0 < number < float("inf"):
            raise argparse.ArgumentTypeError(f"Expected a number above 0. Received: {text}")
        return number

    parse.__name__ = kind.__name__
    return parse


if __name__ == "__main__":
    try:
        main()
    except (GradloomError, OSError) as error:
        sys.exit(f"error: {error}")
