"""The Darknet53 examples from the command line: images are classified, small networks trained, with all they leave."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradloom as gl
from gradloom.formats import darknet

pytest.importorskip("matplotlib", reason="the extra `examples` is not installed")
pytest.importorskip("PIL", reason="the extra `examples` is not installed")

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "darknet53"
CFG = """[net]
height=16
width=16
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=7
size=1
activation=linear
[avgpool]
[softmax]
"""
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]


def run(folder: Path, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder of its own, with no cache of downloads, and nothing within reach."""
    # A proxy that refuses connections keeps the test from downloading.
    offline = {"XDG_CACHE_HOME": str(folder / "cache"), "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        env={**os.environ, **offline},
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def classify(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(folder, str(EXAMPLES / "classify.py"), *arguments, code=code)


def train(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(folder, str(EXAMPLES / "train.py"), *arguments, code=code)


def save_images(folder: Path, names: list[str], seed: int = 0) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name in names:
        height, width = rng.integers(10, 40, 2)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / name)


class TestClassify:
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        save_images(tmp_path, ["one.png", "two.jpg"])
        (tmp_path / "net.cfg").write_text(CFG)
        (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
        darknet.save_weights(darknet.load(tmp_path / "net.cfg"), tmp_path / "net.weights")

    def test_the_five_best_classes_of_each_image(self, tmp_path: Path) -> None:
        own = "--cfg", "net.cfg", "--weights", "net.weights", "--labels", "names.txt"
        done = classify(tmp_path, "one.png", "two.jpg", *own, "--plot", "out/guesses.png")
        model = darknet.load(tmp_path / "net.cfg", tmp_path / "net.weights")
        expected = ""
        for name in ("one.png", "two.jpg"):
            image = darknet.letterbox(darknet.read_image(tmp_path / name), 16, 16)
            (row,) = model.predict(image[np.newaxis])
            best = sorted(range(7), key=lambda number: -row[number])[:5]
            expected += f"{name}:\n" + "".join(f"  {100 * row[n]:5.2f}%  {NAMES[n]}\n" for n in best)
        assert done.stdout.startswith(expected)
        content = (tmp_path / "out" / "guesses.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert min(struct.unpack(">II", content[16:24])) > 300

    def test_classes_without_names_have_numbers(self, tmp_path: Path) -> None:
        done = classify(tmp_path, "one.png", "--cfg", "net.cfg", "--weights", "net.weights")
        assert re.search(r"^  \d+\.\d\d%  class [0-6]$", done.stdout, re.MULTILINE)

    def test_random_weights_are_announced(self, tmp_path: Path) -> None:
        first, second = (classify(tmp_path, "one.png", "--cfg", "net.cfg", "--demo-weights") for _ in range(2))
        assert "RANDOM numbers" in first.stdout.split("one.png:")[0]
        assert first.stdout == second.stdout

    def test_weights_out_of_reach_are_explained(self, tmp_path: Path) -> None:
        error = classify(tmp_path, "one.png", code=1).stderr
        assert error.startswith("error: darknet53.weights is neither in the folder of downloads nor within reach")
        for way_out in ("https://pjreddie.com/media/files/darknet53.weights", "--weights FILE", "--demo-weights"):
            assert way_out in error

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["names.txt", "--demo-weights"],
                r"error: names\.txt: Expected an image such as JPEG or PNG\. Received: 28 b",
            ),
            (["none.jpg", "--demo-weights"], r"error: .*none\.jpg"),
            (
                ["one.png", "--weights", "net.weights"],
                r"error: net\.weights: .* Expected: 166582580 bytes\. Received: ",
            ),
            (["one.png", "--cfg", "one.png", "--demo-weights"], r"error: one\.png:1: Expected \[net\]"),
        ],
    )
    def test_a_wrong_file_ends_with_one_line(self, tmp_path: Path, arguments: list[str], message: str) -> None:
        error = classify(tmp_path, *arguments, code=1).stderr
        assert re.match(message, error), error
        assert error.count("\n") == 1

    def test_names_must_be_as_many_as_classes(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("ant\nbee\n")
        own = "--cfg", "net.cfg", "--weights", "net.weights", "--labels", "names.txt"
        error = classify(tmp_path, "one.png", *own, code=1).stderr
        assert error == "error: names.txt: Expected 7 names, one for each class. Received: 2\n"

    def test_another_network_needs_its_weights(self, tmp_path: Path) -> None:
        assert "--cfg needs --weights FILE" in classify(tmp_path, "one.png", "--cfg", "net.cfg", code=2).stderr


SMALL = ["--network", "small", "--size", "16", "--batch-size", "16", "--out", "out"]


class TestTrain:
    def test_figures_are_learned_and_everything_is_left(self, tmp_path: Path) -> None:
        done = train(tmp_path, "--synthetic", "360", *SMALL, "--epochs", "4", "--learning-rate", "0.05")
        assert done.stdout.startswith("288 training images, 72 validation images, 6 classes\n")
        last = done.stdout.splitlines()[-1]
        figures = dict(part.split(": ") for part in last.split(", "))
        assert sorted(figures) == ["accuracy", "top_5", "val_accuracy", "val_top_5"]
        assert float(figures["val_top_5"]) > 0.85
        assert float(figures["accuracy"]) > 0.4, "six classes, guessed: 0.17"
        left = ["checkpoint.npz", "classes.txt", "network.weights", "training_curve.png"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == left
        assert (tmp_path / "out" / "classes.txt").read_text().split() == [
            "bar", "cross", "disc", "ring", "square", "triangle",
        ]  # fmt: skip
        stages = ((32, 1), (64, 1), (128, 1))
        network = gl.applications.Darknet(stages, 16, input_shape=(16, 16, 3), classes=6)
        darknet.load_weights(network, tmp_path / "out" / "network.weights")

    def test_a_resumed_training_is_one_that_never_stopped(self, tmp_path: Path) -> None:
        options = ["--synthetic", "40", *SMALL[:-2], "--epochs", "3"]
        train(tmp_path, *options, "--out", "whole")
        # Broken off after the first epoch, when its checkpoint has just been written.
        broken_off = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import checkpoint, train
save = checkpoint.save
def save_and_stop(*arguments):
    save(*arguments)
    sys.exit(0)
checkpoint.save = save_and_stop
train.main({[*options, "--out", "parts"]!r})
"""
        run(tmp_path, "-c", broken_off)
        assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["checkpoint.npz"]
        done = train(tmp_path, *options, "--out", "parts", "--resume")
        assert "Epoch 1/3" not in done.stdout
        assert "Epoch 3/3" in done.stdout
        whole, parts = ((tmp_path / name / "network.weights").read_bytes() for name in ("whole", "parts"))
        assert whole == parts

    def test_a_folder_of_images_by_class(self, tmp_path: Path) -> None:
        for seed, name in enumerate(("cats", "dogs")):
            save_images(tmp_path / "photos" / name, [f"{n}.png" for n in range(6)], seed)
        (tmp_path / "photos" / "cats" / "notes.txt").write_text("no image, and not taken for one")
        done = train(tmp_path, "photos", *SMALL, "--epochs", "1", "--validation-split", "0.25")
        assert done.stdout.startswith("9 training images, 3 validation images, 2 classes\n")
        assert (tmp_path / "out" / "classes.txt").read_text() == "cats\ndogs\n"

    def test_bad_folders_end_with_one_line(self, tmp_path: Path) -> None:
        def error(*arguments: str) -> str:
            message = train(tmp_path, *arguments, *SMALL, "--epochs", "1", code=1).stderr
            assert message.count("\n") == 1
            return message

        assert error("missing") == (
            "error: Expected a folder with one subfolder for each class. Received: missing is no folder\n"
        )
        save_images(tmp_path / "photos" / "cats", ["1.png"])
        assert "Expected at least two subfolders, one for each class. Received: 1" in error("photos")
        (tmp_path / "photos" / "dogs").mkdir()
        assert error("photos").startswith("error: photos/dogs: Expected images (.bmp, ")
        (tmp_path / "photos" / "dogs" / "broken.jpg").write_bytes(b"no image")
        assert "photos/dogs/broken.jpg: Expected an image" in error("photos")

    def test_checkpoints_of_other_settings_are_refused(self, tmp_path: Path) -> None:
        options = ["--synthetic", "24", *SMALL]
        missing = train(tmp_path, *options, "--epochs", "1", "--resume", code=1).stderr
        assert missing == "error: Expected a checkpoint to resume from. Received: no file out/checkpoint.npz\n"
        train(tmp_path, *options, "--epochs", "1")
        other = train(tmp_path, *options, "--epochs", "2", "--resume", code=1).stderr
        assert "Expected a checkpoint with the same settings. Received: epochs: 1 there, 2 now" in other
        (tmp_path / "out" / "checkpoint.npz").write_bytes(b"PK\x03\x04 broken")
        broken = train(tmp_path, *options, "--epochs", "1", "--resume", code=1).stderr
        assert broken.startswith("error: out/checkpoint.npz: Expected a checkpoint of this training.")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "Expected a folder of images or --synthetic, one of them"),
            (["photos", "--synthetic"], "Expected a folder of images or --synthetic, one of them"),
            (["photos", "--epochs", "0"], "argument --epochs: Expected a number above 0. Received: 0"),
            (["photos", "--validation-split", "1"], "argument --validation-split: Expected a share in [0, 1)"),
        ],
    )
    def test_a_wrong_option_is_explained(self, tmp_path: Path, arguments: list[str], message: str) -> None:
        assert message in train(tmp_path, *arguments, code=2).stderr
