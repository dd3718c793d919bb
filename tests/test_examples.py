"""The examples run from the command line, at reduced size, and leave what they promise."""

from __future__ import annotations

import gzip
import importlib
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from gradloom.datasets import synthetic_fashion

TRAIN = Path(__file__).resolve().parents[1] / "examples" / "fashion_mnist" / "train.py"
PICTURES = ["predictions.png", "train_step.svg", "training_curve.png"]
pytest.importorskip("matplotlib", reason="the extra `examples` is not installed")


def run(folder: Path, *arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the example as a user would, with caches in `folder` and no data set within reach."""
    environment = {name: value for name, value in os.environ.items() if name != "GRADLOOM_DATA"}
    # A proxy that refuses connections keeps the test from downloading.
    offline = {"XDG_CACHE_HOME": str(folder / "cache"), "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TRAIN), "--output", str(folder / "out"), *arguments],
        env={**environment, **offline, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a module of the example."""
    monkeypatch.syspath_prepend(str(TRAIN.parent))
    names = [file.stem for file in TRAIN.parent.glob("*.py")]
    for name in names:  # The other example has modules of the same names, too.
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def write_data_set(folder: Path) -> Path:
    folder.mkdir()
    train, test = synthetic_fashion.load_data(train=330, test=100)
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return folder


@pytest.mark.smoke
def test_training_leaves_pictures_and_ends_with_the_accuracy(tmp_path: Path) -> None:
    done = run(tmp_path, "--epochs", "2", "--data", str(write_data_set(tmp_path / "data")))
    lines = done.stdout.splitlines()
    accuracy = re.fullmatch(r"test accuracy: (\d\.\d{4})", lines[-1])
    assert accuracy
    assert float(accuracy[1]) > 0.3, "ten classes, guessed: 0.1"
    assert "330 training images, 100 test images" in lines
    assert re.search(r"training: \d+\.\d+ µs per sample", done.stdout)
    assert "NOT Fashion-MNIST" not in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == PICTURES
    for name in ("training_curve.png", "predictions.png"):
        content = (tmp_path / "out" / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", content[16:24])
        assert min(width, height) > 300
    drawing = ElementTree.parse(tmp_path / "out" / "train_step.svg").getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg" and float(drawing.attrib["width"]) < 1600, (
        "as wide as a page"
    )
    assert "dense/matmul+add+maximum" in "".join(drawing.itertext())


def test_missing_matplotlib_is_said_before_the_training(tmp_path: Path) -> None:
    without = (
        f"import runpy, sys; sys.modules['matplotlib'] = None; runpy.run_path({str(TRAIN)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", without], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: Expected matplotlib, which draws the pictures. It comes with: pip install -e '.[examples]'"
    ]


@pytest.mark.parametrize("variables", [{"GRADLOOM_TARGET": "z80"}, {"GRADLOOM_NUM_THREADS": "two"}])
def test_a_wrong_variable_is_said_before_data_are_looked_for(tmp_path: Path, variables: dict[str, str]) -> None:
    done = run(tmp_path, code=1, **variables)
    assert done.stdout == "" and re.fullmatch(r"error: .*Expected .* Received: .*(z80|two).*\n", done.stderr)


def test_drawn_images_are_announced_and_admitted(tmp_path: Path) -> None:
    done = run(tmp_path, "--epochs", "1", "--batch-size", "100")
    assert "Fashion-MNIST was not found" in done.stderr
    before, after = done.stdout.split("Epoch 1/1", 1)
    assert "NOTHING about Fashion-MNIST" in before
    assert "NOTHING about Fashion-MNIST" in after
    assert re.fullmatch(r"test accuracy: \d\.\d{4}", done.stdout.splitlines()[-1])


def test_a_corrupt_data_set_ends_with_one_line(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data")
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8b broken")
    done = run(tmp_path, GRADLOOM_DATA=str(folder), code=1)
    assert re.fullmatch(r"error: .*t10k-labels-idx1-ubyte.gz: .*\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "argument --epochs: Expected a number above 0. Received: 0"),
        (["--learning-rate", "nan"], "argument --learning-rate: Expected a number above 0. Received: nan"),
        (["--optimizer", "adma"], "argument --optimizer: invalid choice: 'adma'"),
        (["--seed", "-1"], "argument --seed: Expected a number from 0 to 4294967295. Received: -1"),
        (["--output", "file/out"], "argument --output: Expected a folder to write into. Received: 'file/out'"),
        (["--output", ""], "argument --output: Expected a folder to write into. Received: ''"),
    ],
)
def test_a_wrong_option_is_explained(
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


def test_a_training_that_diverges_is_said_and_drawn(tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data")
    done = run(tmp_path, "--epochs", "1", "--optimizer", "sgd", "--learning-rate", "1e30", "--data", str(data))
    assert "The loss is no finite number: training diverged." in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == PICTURES


def test_the_curve_of_one_epoch_has_one_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: Callable[[str], Any]
) -> None:
    from matplotlib.figure import Figure

    saved: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file: (figure.draw_without_rendering(), saved.append(figure)))
    pictures = modules("pictures")
    nan = float("nan")
    history = {"loss": [nan], "val_loss": [nan], "accuracy": [1.0], "val_accuracy": [0.99]}
    pictures.draw_training_curve(history, "title", tmp_path / "curve.png")
    loss, accuracy = saved[0].axes
    assert [tick for tick in accuracy.get_xticks() if 0.7 <= tick <= 1.3] == [1]
    assert accuracy.get_ylim()[1] == 1
    assert [text.get_text() for text in loss.texts] == ["no finite number"]
    top = saved[0].legends[0].get_window_extent().y1
    assert all(top <= axes.get_tightbbox().y0 + 1 for axes in saved[0].axes), "the legend covers nothing"


def test_predictions_are_blue_where_right_and_red_where_wrong(tmp_path: Path, modules: Callable[[str], Any]) -> None:
    from PIL import Image

    pictures = modules("pictures")
    labels = np.array([3, 4])
    file = tmp_path / "grid.png"
    shares = {}
    for right in (0, 1, 2):
        guesses = np.where(np.arange(2) < right, labels, 9)
        images = np.zeros((2, 28, 28), np.uint8)
        probabilities = np.eye(10)[guesses]
        pictures.draw_predictions(images, labels, probabilities, synthetic_fashion.CLASS_NAMES, "title", file)
        pixels = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)
        shares[right] = [
            int((pixels == tuple(bytes.fromhex(color[1:]))).all(axis=1).sum()) for color in ("#2b6cb0", "#c53030")
        ]
    (blue_0, red_0), (blue_1, red_1), (blue_2, red_2) = (shares[right] for right in (0, 1, 2))
    assert blue_0 < blue_1 < blue_2
    assert red_0 > red_1 > red_2 == 0
