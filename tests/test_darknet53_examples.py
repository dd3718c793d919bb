"""The Darknet53 examples from the command line: images are classified, small networks trained, with all they leave."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a module of the examples."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    names = [file.stem for file in EXAMPLES.glob("*.py")]
    for name in names:  # The other example has modules of the same names, too.
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


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

    def test_compiling_and_time_are_told_beside_the_result(self, tmp_path: Path) -> None:
        done = classify(tmp_path, "one.png", "--cfg", "net.cfg", "--demo-weights")
        assert re.fullmatch(
            r"compiling net for 16×16 images …\nready in \d+\.\d s; \d+\.\d ms an image\n\n", done.stderr
        )

    def test_images_that_are_none_do_not_keep_others_from_being_classified(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        (tmp_path / "empty.jpg").touch()
        bad = ["none.jpg", "pipe.png", "empty.jpg", "."]
        own = "--cfg", "net.cfg", "--weights", "net.weights"
        done = classify(tmp_path, bad[0], "one.png", *bad[1:], "two.jpg", *own, "--plot", "guesses.svg", code=1)
        assert [line for line in done.stdout.splitlines() if line.endswith(":")] == ["one.png:", "two.jpg:"]
        errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
        assert errors == [
            "error: none.jpg: No such file or directory",
            "error: pipe.png: Expected an image such as JPEG or PNG. Received: no regular file",
            "error: empty.jpg: Expected an image such as JPEG or PNG. Received: an empty file",
            "error: .: Expected an image such as JPEG or PNG. Received: a folder",
        ]
        assert (tmp_path / "guesses.svg").exists()

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
            (["none.jpg", "--demo-weights"], r"error: none\.jpg: No such file or directory"),
            (["one.png", "--demo-weights", "--labels", "one.png"], r"error: one\.png: Expected a text file with the n"),
            (["one.png", "--demo-weights", "--labels", "none.txt"], r"error: none\.txt: No such file or directory"),
            (["one.png", "--weights", "two.jpg"], r"error: two\.jpg: .* Received: another format, \d+ bytes"),
            (
                ["one.png", "--weights", "net.weights"],
                r"error: net\.weights: .* Expected: 166582580 bytes\. Received: ",
            ),
            (["one.png", "--cfg", "one.png", "--demo-weights"], r"error: one\.png:1: Expected \[net\]"),
        ],
    )
    def test_a_wrong_file_ends_with_one_line(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        modules: Callable[[str], Any],
        arguments: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        main = modules("classify").main
        with pytest.raises(SystemExit) as ended:
            modules("command_line").run(lambda: main(arguments))
        # A text as exit code is what Python itself prints, before it exits with 1.
        text = "" if ended.value.code == 1 else f"{ended.value.code}\n"
        error = capsys.readouterr().err + text
        assert re.match(message, error), error
        assert error.count("\n") == 1

    def test_names_must_be_as_many_as_classes(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("ant\nbee\n")
        own = "--cfg", "net.cfg", "--weights", "net.weights", "--labels", "names.txt"
        error = classify(tmp_path, "one.png", *own, code=1).stderr
        assert error == "error: names.txt: Expected 7 names, one for each class. Received: 2\n"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--cfg", "net.cfg"], "--cfg needs --weights FILE"),
            (["--cfg", "net.cfg", "--demo-weights", "--size", "16"], "Expected --size or --cfg. Received: both"),
            (["--size", "0"], "argument --size: Expected a number from 1 on. Received: 0"),
            (
                ["--plot", "x.txt"],
                "argument --plot: Expected a file name ending in .pdf, .png, .svg. Received: 'x.txt'",
            ),
            (["--plot", "x"], "argument --plot: Expected a file name ending in .pdf, .png, .svg. Received: 'x'"),
            (["--plot", ""], "argument --plot: Expected a file name ending in .pdf, .png, .svg. Received: ''"),
            (["--plot", "dir.png"], "argument --plot: Expected a file name. Received: 'dir.png', a folder"),
            (["--plot", "one.png/x.png"], "argument --plot: Expected a folder. Received: 'one.png', a file"),
        ],
    )
    def test_a_wrong_option_is_explained_before_any_work(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        modules: Callable[[str], Any],
        arguments: list[str],
        message: str,
    ) -> None:
        (tmp_path / "dir.png").mkdir()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit, match="2"):
            modules("classify").parse_arguments(["one.png", *arguments])
        assert message in capsys.readouterr().err

    def test_a_wrong_file_among_the_downloads_is_to_be_deleted(self, tmp_path: Path) -> None:
        file = tmp_path / "cache" / "gradloom" / "darknet53" / "darknet53.weights"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"broken")
        error = classify(tmp_path, "one.png", code=1).stderr
        assert re.match(r"error: .*darknet53\.weights: .* Received: 6 bytes\. Delete it", error)


SMALL = ["--network", "small", "--size", "16", "--batch-size", "16", "--output", "out"]


class TestTrain:
    def test_figures_are_learned_and_everything_is_left(self, tmp_path: Path) -> None:
        done = train(tmp_path, "--synthetic", "360", *SMALL, "--epochs", "4", "--learning-rate", "0.05")
        assert done.stdout.startswith("288 training images, 72 validation images, 6 classes\n")
        last = done.stdout.splitlines()[-1]
        figures = dict(part.split(": ") for part in last.split(", "))
        assert sorted(figures) == ["accuracy", "top_5", "val_accuracy", "val_top_5"]
        assert float(figures["val_top_5"]) > 0.85
        assert float(figures["accuracy"]) > 0.4, "six classes, guessed: 0.17"
        left = ["checkpoint.npz", "classes.txt", "network.cfg", "network.weights", "training_curve.png"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == left
        assert (tmp_path / "out" / "classes.txt").read_text().split() == [
            "bar", "cross", "disc", "ring", "square", "triangle",
        ]  # fmt: skip
        stages = ((32, 1), (64, 1), (128, 1))
        network = gl.applications.Darknet(stages, 16, input_shape=(16, 16, 3), classes=6)
        darknet.load_weights(network, tmp_path / "out" / "network.weights")

        # The cfg file describes the same network: the command that was printed classifies with it.
        x = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
        read = darknet.load(tmp_path / "out" / "network.cfg", tmp_path / "out" / "network.weights")
        np.testing.assert_allclose(read.predict(x), network.predict(x), rtol=1e-4, atol=1e-6)
        (command,) = re.findall(r"^To classify: python (.*) IMAGE…$", done.stdout, re.MULTILINE)
        save_images(tmp_path, ["one.png"])
        guesses = run(tmp_path, *shlex.split(command), "one.png").stdout
        assert re.match(r"one\.png:\n  [ \d]\d\.\d\d%  (bar|cross|disc|ring|square|triangle)\n", guesses)

        again = train(tmp_path, "--synthetic", "360", *SMALL, code=1).stderr
        assert again.startswith("error: out/checkpoint.npz is there already: --resume goes on from it, --overwrite ")
        further = [*SMALL[:-1], "more", "--weights", "out/network.weights", "--epochs", "1"]
        done = train(tmp_path, "--synthetic", "360", *further)
        (reached,) = re.findall(r"^accuracy: (\S+),", done.stdout, re.MULTILINE)
        assert float(reached) > 0.4, "it began with what was learned"

    def test_a_resumed_training_is_one_that_never_stopped(self, tmp_path: Path) -> None:
        options = ["--synthetic", "40", *SMALL[:-2], "--epochs", "3"]
        train(tmp_path, *options, "--output", "whole")
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
train.main({[*options, "--output", "parts"]!r})
"""
        run(tmp_path, "-c", broken_off)
        assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["checkpoint.npz"]
        done = train(tmp_path, *options, "--output", "parts", "--resume")
        assert "Epoch 1/3" not in done.stdout
        assert "Epoch 3/3" in done.stdout
        whole, parts = ((tmp_path / name / "network.weights").read_bytes() for name in ("whole", "parts"))
        assert whole == parts

    def test_ctrl_c_says_how_to_go_on(self, tmp_path: Path) -> None:
        # The second call of `fit` is broken off, as a signal within it would.
        interrupted = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import command_line, train, gradloom as gl
fit, calls = gl.Model.fit, []
def interrupted(*arguments, **options):
    calls.append(1)
    if len(calls) == LAST:
        raise KeyboardInterrupt
    return fit(*arguments, **options)
gl.Model.fit = interrupted
command_line.run(lambda: train.main({["--synthetic", "24", *SMALL, "--epochs", "2", "--overwrite"]!r}))
"""
        first, second = (run(tmp_path, "-c", interrupted.replace("LAST", last), code=130).stderr for last in "12")
        assert first == "\ninterrupted before the end of the first epoch: there is nothing to resume from\n"
        assert second == "\ninterrupted; the same command with --resume goes on from out/checkpoint.npz\n"

    def test_a_training_that_diverges_stops(self, tmp_path: Path) -> None:
        options = ["--synthetic", "24", *SMALL, "--epochs", "3", "--learning-rate", "1e30"]
        error = train(tmp_path, *options, code=1).stderr
        assert re.match(r"error: epoch \d: Expected a finite loss\. Received: (nan|inf)\. Training diverged", error)
        assert not (tmp_path / "out" / "network.weights").exists()

    def test_a_folder_of_images_by_class(self, tmp_path: Path) -> None:
        for seed, name in enumerate(("cats", "dogs")):
            save_images(tmp_path / "photos" / name, [f"{n}.png" for n in range(6)], seed)
        for name in ("notes.txt", ".hidden.png", "._0.jpg"):
            (tmp_path / "photos" / "cats" / name).write_text("no image, and not taken for one")
        (tmp_path / "photos" / "cats" / "more.png").mkdir()
        done = train(tmp_path, "photos", *SMALL, "--epochs", "1", "--validation-split", "0.25")
        assert done.stdout.startswith("9 training images, 3 validation images, 2 classes\n")
        assert (tmp_path / "out" / "classes.txt").read_text() == "cats\ndogs\n"
        assert "top_5" not in done.stdout, "of two classes the right one is always among five"

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
        assert "Expected a checkpoint with the same settings. Received: epochs: 1 there, 2 now. The learning r" in other
        (tmp_path / "out" / "checkpoint.npz").write_bytes(b"PK\x03\x04 broken")
        broken = train(tmp_path, *options, "--epochs", "1", "--resume", code=1).stderr
        assert broken.startswith("error: out/checkpoint.npz: Expected a checkpoint of this training.")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "Expected a folder of images or --synthetic, one of them"),
            (["photos", "--synthetic"], "Expected a folder of images or --synthetic, one of them"),
            (["photos", "--epochs", "0"], "argument --epochs: Expected a number from 1 on. Received: 0"),
            (["photos", "--validation-split", "1"], "argument --validation-split: Expected a share in [0, 1)"),
            (["photos", "--seed", "-1"], "argument --seed: Expected a number from 0 to 4294967295. Received: -1"),
            (["photos", "--momentum", "2"], "argument --momentum: Expected a share in [0, 1). Received: 2"),
            (["photos", "--weight-decay", "-1"], "argument --weight-decay: Expected a number from 0 on. Received: -1"),
            (["photos", "--output", "file/out"], "argument --output: Expected a folder. Received: 'file', a file"),
            (["photos", "--output", ""], "argument --output: Expected a folder. Received: ''"),
            (["photos", "--resume", "--weights", "w"], "Expected --resume or --weights. Received: both"),
        ],
    )
    def test_a_wrong_option_is_explained(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        modules: Callable[[str], Any],
        arguments: list[str],
        message: str,
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit, match="2"):
            modules("train").parse_arguments(arguments)
        assert message in capsys.readouterr().err


class TestPictures:
    @pytest.fixture
    def pictures(self, modules: Callable[[str], Any]) -> Any:
        return modules("pictures")

    @pytest.fixture
    def figures(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """The figures that were saved."""
        from matplotlib.figure import Figure

        saved: list[Any] = []
        monkeypatch.setattr(
            Figure, "savefig", lambda figure, file: (figure.draw_without_rendering(), saved.append(figure))
        )
        return saved

    def test_the_curve_of_one_epoch_has_one_tick_and_shares_end_at_one(self, pictures: Any, figures: list[Any]) -> None:
        pictures.draw_history([{"loss": 1.5, "accuracy": 1.0, "val_loss": 2.5, "val_accuracy": 0.99}], Path("x.png"))
        loss, accuracy = figures[0].axes
        assert [tick for tick in loss.get_xticks() if 0.7 <= tick <= 1.3] == [1]
        assert accuracy.get_ylim()[1] == 1
        (legend,) = figures[0].legends
        below = legend.get_window_extent().y1
        assert all(below <= axes.get_tightbbox().y0 + 1 for axes in figures[0].axes), "the legend covers nothing"

    def test_guesses_have_names_and_one_scale(
        self, pictures: Any, figures: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pictures, "MOST_GUESSES", 2)
        images = [np.full((8, 8, 3), 0.5, np.float32)] * 3
        guesses = [[("ant", share), ("bee", 0.05)] for share in (0.1, 0.8, 0.9)]
        shown = pictures.draw_guesses(["0.png", "1.png", "2.png"], images, guesses, "", Path("x.png"))
        assert shown == 2 and len(figures[0].axes) == 4
        left, right = figures[0].axes[::2], figures[0].axes[1::2]
        assert [axes.get_title() for axes in left] == ["0.png", "1.png"]
        assert all(axes.get_xlim() == (0, pytest.approx(0.944)) for axes in right)
        assert "40%" in [label.get_text() for label in right[0].get_xticklabels()]
