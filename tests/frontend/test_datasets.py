"""Where Fashion-MNIST is looked for, which files are accepted, and the drawn stand-in."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradloom.datasets import fashion_mnist, synthetic_fashion
from gradloom.datasets.fashion_mnist import DataNotFoundError
from gradloom.datasets.idx import DataFileError
from gradloom.datasets.raster import coverage, round_corners


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def put(folder: Path, train: int = 5, test: int = 3, compressed: bool = True) -> Path:
    """Write a small data set whose pictures all have the folder's number of training pictures as grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        for name, array in (
            (f"{prefix}-images-idx3-ubyte", np.full((count, 28, 28), train, np.uint8)),
            (f"{prefix}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8)),
        ):
            content = idx(array)
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and nothing else that a data set could come from."""
    monkeypatch.delenv("GRADLOOM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    # Nothing listens on the discard port: connections are refused at once.
    monkeypatch.setattr(fashion_mnist, "URL", "http://127.0.0.1:9")
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "xdg" / "gradloom" / "fashion-mnist"


@pytest.mark.parametrize("compressed", [True, False])
def test_counts_come_from_the_headers(tmp_path: Path, compressed: bool) -> None:
    (x, y), (x_test, y_test) = fashion_mnist.load_data(put(tmp_path / "data", 7, 2, compressed))
    assert (x.shape, y.shape, x_test.shape, y_test.shape) == ((7, 28, 28), (7,), (2, 28, 28), (2,))
    assert all(array.dtype == np.uint8 for array in (x, y, x_test, y_test))
    assert y.tolist() == list(range(7))


def test_the_first_place_wins(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache, train=1)
    assert len(fashion_mnist.load_data()[0][0]) == 1
    monkeypatch.setenv("GRADLOOM_DATA", str(put(tmp_path / "env", train=2)))
    assert len(fashion_mnist.load_data()[0][0]) == 2
    assert len(fashion_mnist.load_data(str(put(tmp_path / "path", train=3)))[0][0]) == 3


def test_whoever_names_a_folder_learns_that_it_was_not_used(tmp_path: Path, cache: Path) -> None:
    put(cache, train=1)
    with pytest.warns(UserWarning, match=f"taken from {cache}.*path: {tmp_path} has none of the files"):
        fashion_mnist.load_data(tmp_path)


def test_the_error_lists_all_that_was_tried(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLOOM_DATA", str(put(tmp_path / "env")))
    (tmp_path / "env" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataNotFoundError) as caught:
        fashion_mnist.load_data(tmp_path / "nowhere")
    lines = str(caught.value).splitlines()
    assert f"  path: {tmp_path / 'nowhere'} is no folder" in lines
    assert f"  $GRADLOOM_DATA: {tmp_path / 'env'} lacks t10k-labels-idx1-ubyte[.gz]" in lines
    assert f"  folder of downloads: {cache} is no folder" in lines
    assert any(line.startswith("  download: http://127.0.0.1:9/train-images-idx3-ubyte.gz: ") for line in lines)
    assert isinstance(caught.value, FileNotFoundError)


def test_missing_files_are_downloaded_into_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = put(tmp_path / "published", train=4)
    sums = {name: hashlib.md5((published / f"{name}.gz").read_bytes()).hexdigest() for name in fashion_mnist.MD5}
    monkeypatch.setattr(fashion_mnist, "MD5", sums)
    monkeypatch.setattr(fashion_mnist, "URL", published.as_uri())
    assert len(fashion_mnist.load_data()[0][0]) == 4
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{name}.gz" for name in sums)
    monkeypatch.setattr(fashion_mnist, "URL", "http://127.0.0.1:9")
    assert len(fashion_mnist.load_data()[0][0]) == 4


def test_images_and_labels_must_be_a_pair(tmp_path: Path) -> None:
    folder = put(tmp_path, train=5)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(4, np.uint8))))
    with pytest.raises(DataFileError, match=r"5 images in .*train-images.*Received: 4 labels in .*train-labels"):
        fashion_mnist.load_data(folder)


def test_train_and_test_images_must_have_one_size(tmp_path: Path) -> None:
    folder = put(tmp_path, test=3)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((3, 27, 28), np.uint8))))
    with pytest.raises(DataFileError, match=r"Expected: \(28, 28\).*Received: \(27, 28\)"):
        fashion_mnist.load_data(folder)


def test_a_corrupt_file_is_no_reason_to_look_elsewhere(tmp_path: Path, cache: Path) -> None:
    put(cache)
    folder = put(tmp_path / "data")
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataFileError, match="train-images-idx3-ubyte.gz: truncated"):
        fashion_mnist.load_data(folder)


def test_the_stand_in_has_the_shapes_types_and_classes_of_the_data_set() -> None:
    (x, y), (x_test, y_test) = synthetic_fashion.load_data(train=50, test=20)
    assert (x.shape, y.shape, x_test.shape, y_test.shape) == ((50, 28, 28), (50,), (20, 28, 28), (20,))
    assert all(array.dtype == np.uint8 for array in (x, y, x_test, y_test))
    assert np.bincount(y).tolist() == [5] * 10
    assert len(synthetic_fashion.CLASS_NAMES) == 10
    assert x[:, 0, 0].max() == 0, "the background is black"
    assert (x > 0).mean(axis=(1, 2)).min() > 0.05, "every picture shows something"


def test_the_same_seed_draws_the_same_pictures() -> None:
    first = synthetic_fashion.load_data(train=40, test=20, seed=3)
    again = synthetic_fashion.load_data(train=60, test=20, seed=3)
    other = synthetic_fashion.load_data(train=40, test=20, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(first[1], again[1], strict=True))
    assert not np.array_equal(first[0][0], other[0][0])
    assert not np.array_equal(first[0][0][:20], first[1][0]), "training and test pictures differ"


@pytest.mark.parametrize("train", [0, 1, 9])
def test_the_stand_in_can_have_fewer_pictures_than_classes(train: int) -> None:
    (x, y), _ = synthetic_fashion.load_data(train=train, test=0)
    assert x.shape == (train, 28, 28)
    assert len(set(y.tolist())) == train


def test_no_class_looks_like_another_on_average() -> None:
    (x, y), _ = synthetic_fashion.load_data(train=1000, test=0)
    masks = (x > 0).astype(np.float64)
    means = np.stack([masks[y == label].mean(axis=0) for label in range(10)])
    distances = np.abs(means[:, None] - means[None]).mean(axis=(2, 3))
    assert distances[~np.eye(10, dtype=bool)].min() > 0.02


@pytest.mark.parametrize("argument", ["train", "test", "seed"])
def test_negative_numbers_are_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=f"Expected {argument} to be 0 or more. Received: {argument}=-1"):
        synthetic_fashion.load_data(**{argument: -1})


corners = st.floats(-2, 10).map(lambda number: round(number, 3))


@settings(deadline=None)
@given(x0=corners, y0=corners, width=st.floats(0, 9), rows=st.integers(0, 8))
def test_a_rectangle_covers_its_area(x0: float, y0: float, width: float, rows: int) -> None:
    """Widths are exact; heights in quarters of a pixel, here whole rows from a quarter on."""
    y0 = np.floor(y0 * 4) / 4
    box = np.array([[[x0, y0], [x0 + width, y0], [x0 + width, y0 + rows], [x0, y0 + rows]]])
    inside = np.clip(box, 0, 8)[0]
    area = (inside[1, 0] - inside[0, 0]) * (inside[2, 1] - inside[1, 1])
    for polygon in (box, box[:, ::-1]):
        assert coverage(polygon, size=8).sum() == pytest.approx(area, abs=1e-9)


def test_a_triangle_covers_half_of_its_box() -> None:
    triangle = np.array([[[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]]])
    assert coverage(triangle, size=8).sum() == pytest.approx(32)


def test_rounded_corners_stay_inside_and_keep_the_middle() -> None:
    box = np.array([[[0.0, 0.0], [8.0, 0.0], [8.0, 8.0], [0.0, 8.0]]])
    rounded = coverage(round_corners(box), size=8)[0]
    assert rounded[0, 0] == 0
    assert rounded[4, 4] == rounded[0, 4] == 1
