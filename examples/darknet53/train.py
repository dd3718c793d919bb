"""Train Darknet53, or a small network of its family, on a folder of images.

Run it as `python examples/darknet53/train.py DIR`, or with `--help`.
"""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cfg_file
import checkpoint
import command_line
import gradloom as gl
import image_folder
from gradloom.applications.darknet53 import STAGES
from gradloom.compiler.errors import GradloomError
from gradloom.formats import darknet

FAMILY = {"darknet53": (STAGES, 32), "small": (((32, 1), (64, 1), (128, 1)), 16)}
"""Of each network that can be trained: filters and residual blocks of its stages, and filters of its first layer."""

BEST = 5
"""An image also counts as recognized in the accuracy `top_5` if its class is among so many best ones."""

DECAY = "The learning rate falls to 0 at the last epoch, so their number is part of the training from its begin"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train on a folder with one subfolder of images for each class. After every epoch a checkpoint is "
        "left, from which --resume goes on.",
        epilog=f"{DECAY}: --resume wants the same --epochs. To train a finished network further, begin anew from its "
        "weights: --weights OLD/network.weights --output NEW.",
    )
    add, number = parser.add_argument, command_line.integer
    add("folder", nargs="?", type=Path, metavar="DIR", help="the folder of images")
    add("--synthetic", type=number(1), nargs="?", const=240, metavar="N", help="train on N drawn figures instead; on "
        "%(const)s without a number")  # fmt: skip
    add("--network", choices=list(FAMILY), default="darknet53", help="which one to train; by default %(default)s")
    add("--size", type=number(1), default=256, help="height and width that images are brought to; by default "
        "%(default)s")  # fmt: skip
    add("--epochs", type=number(1), default=10, help="passes over the training images, in all; by default %(default)s")
    add("--batch-size", type=number(1), default=8, help="images a training step; by default %(default)s, at most all")
    add("--learning-rate", type=command_line.positive, default=0.01, help="of the first step; by default %(default)s")
    add("--power", type=command_line.positive, default=4.0, help="with which it falls to 0, polynomially; by default "
        "%(default)s")  # fmt: skip
    add("--momentum", type=command_line.share, default=0.9, help="how much of a step the next one keeps; by default "
        "%(default)s")  # fmt: skip
    add("--weight-decay", type=command_line.weight, default=0.0005, help="how fast weights shrink by themselves; by "
        "default %(default)s")  # fmt: skip
    add("--validation-split", type=command_line.share, default=0.2, help="share of images to validate with; by default "
        "%(default)s")  # fmt: skip
    add("--seed", type=number(0, 2**32 - 1), default=0, help="of first weights, split and order of images; by default "
        "%(default)s")  # fmt: skip
    add("--threads", type=number(1), help="by default all that the machine gives; results do not depend on it")
    add("--output", type=command_line.output_folder, default="out/darknet53", metavar="DIR", help="for what is "
        "left; by default %(default)s")  # fmt: skip
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    start.add_argument("--overwrite", action="store_true", help="begin anew, in place of the checkpoint that is there")
    add("--weights", type=Path, metavar="FILE", help="begin with the weights of this Darknet weights file, of the same "
        "network and number of classes")  # fmt: skip
    chosen = parser.parse_args(arguments)
    if (chosen.folder is None) == (chosen.synthetic is None):
        parser.error("Expected a folder of images or --synthetic, one of them")
    if chosen.resume and chosen.weights:
        parser.error("Expected --resume or --weights. Received: both, but a checkpoint has weights of its own")
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
    network = gl.applications.Darknet(
        *FAMILY[arguments.network], input_shape=shape, classes=classes, name=arguments.network
    )
    if arguments.weights:
        darknet.load_weights(network, arguments.weights)
    return network


def make_model(arguments: argparse.Namespace, network: gl.Model, steps: int, classes: int) -> gl.Model:
    """The network for images of bytes, ready to be trained."""
    image = gl.Input((arguments.size, arguments.size, 3), dtype="uint8", name="bytes")
    model = gl.Model(image, network(gl.layers.Rescaling(1 / 255)(image)), name="trained")
    schedule = gl.optimizers.schedules.PolynomialDecay(
        arguments.learning_rate, decay_steps=steps, end_learning_rate=0.0, power=arguments.power
    )
    metrics: list[Any] = ["accuracy"]
    if classes > BEST:  # Among five of five classes every image would be recognized.
        metrics.append(gl.metrics.SparseTopKCategoricalAccuracy(BEST, name="top_5"))
    model.compile(
        optimizer=gl.optimizers.SGD(schedule, momentum=arguments.momentum, weight_decay=arguments.weight_decay),
        loss="sparse_categorical_crossentropy",
        metrics=metrics,
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


def main(command: Sequence[str] | None = None) -> None:
    """Load, train, leave checkpoints, weights and pictures."""
    arguments = parse_arguments(command)
    file = checkpoint_file(arguments)
    import pictures  # here and not above: matplotlib is an extra

    command_line.check_environment()
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
    try:
        history = train(arguments, file, model, (x[:kept], y[:kept]), (x[kept:], y[kept:]), names)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; the same command with --resume goes on from {file}"
            if file.exists()
            else "interrupted before the end of the first epoch: there is nothing to resume from"
        ) from None

    darknet.save_weights(network, arguments.output / "network.weights")
    cfg = cfg_file.describe(*FAMILY[arguments.network], arguments.size, len(names))
    (arguments.output / "network.cfg").write_text(cfg, encoding="utf-8")
    (arguments.output / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    pictures.draw_history(history, arguments.output / "training_curve.png")
    say_what_is_left(arguments.output)
    last = {name: value for name, value in history[-1].items() if "accuracy" in name or "top_5" in name}
    print(", ".join(f"{name}: {value:.4f}" for name, value in last.items()), flush=True)


def checkpoint_file(arguments: argparse.Namespace) -> Path:
    """Return the checkpoint's place; raise GradloomError where beginning anew would destroy what is there."""
    file: Path = arguments.output / "checkpoint.npz"
    if file.exists() and not (arguments.resume or arguments.overwrite):
        raise GradloomError(
            f"{file} is there already: --resume goes on from it, --overwrite begins anew in its place, and --output "
            "DIR leaves it alone"
        )
    return file


def train(
    arguments: argparse.Namespace,
    file: Path,
    model: gl.Model,
    training: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    names: list[str],
) -> checkpoint.Epochs:
    """Train the epochs that are left, with a checkpoint after each; return the figures of all of them.

    Raises GradloomError, and leaves the last checkpoint, when training diverges.
    """
    options = ("network", "size", "epochs", "batch_size", "learning_rate", "power", "momentum", "weight_decay", "seed")
    settings = {option: getattr(arguments, option) for option in options}
    settings |= {"classes": names, "training images": len(training[0])}
    history = checkpoint.restore(file, model, settings, {"epochs": DECAY}) if arguments.resume else []
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.overwrite:
        file.unlink(missing_ok=True)
    if len(history) < arguments.epochs:
        print("compiling the training step; what was compiled before is kept on disk …", flush=True)
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
        if not all(map(math.isfinite, history[-1].values())):
            raise GradloomError(
                f"epoch {epoch + 1}: Expected a finite loss. Received: {history[-1]['loss']}. Training diverged: try "
                f"a --learning-rate below {arguments.learning_rate}"
            )
        checkpoint.save(file, model, settings, history)
    return history


def say_what_is_left(out: Path) -> None:
    """List the files, and the command that classifies with them."""
    print()
    for name, what in (
        ("training_curve.png", "loss and accuracies by epoch"),
        ("checkpoint.npz", "the state after the last epoch"),
        ("network.weights", "the weights, as a file that Darknet reads"),
        ("network.cfg", "the network, as a file that Darknet reads"),
        ("classes.txt", "the names of the classes"),
    ):
        print(f"{out / name}: {what}")
    script = shlex.quote(str(Path(__file__).with_name("classify.py")))
    files = (
        f"--{option} {shlex.quote(str(out / name))}"
        for option, name in (("cfg", "network.cfg"), ("weights", "network.weights"), ("labels", "classes.txt"))
    )
    print(f"\nTo classify: python {script} {' '.join(files)} IMAGE…\n")


if __name__ == "__main__":
    command_line.run(main)
