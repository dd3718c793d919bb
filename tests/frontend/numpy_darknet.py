"""Darknet's forward pass in NumPy, channel-first, in float64, by its own reader: an oracle for `gl.formats.darknet`."""

from __future__ import annotations

import struct

import numpy as np

Options = dict[str, str]


def sections(text: str) -> list[tuple[str, Options]]:
    found: list[tuple[str, Options]] = []
    for line in text.splitlines():
        line = line.split("#")[0].replace(" ", "")
        if line.startswith("["):
            found.append((line.strip("[]"), {}))
        elif "=" in line:
            key, value = line.split("=")
            found[-1][1][key] = value
    return found


def count_floats(text: str) -> int:
    """How many floats a weights file holds."""
    counter = Floats(b"")
    forward(text, counter, None)
    return counter.used


class Floats:
    """The numbers of a weights file, taken one array after the other; zeros if there is no file."""

    def __init__(self, data: bytes, header: str = "<iiiQ") -> None:
        self.values = np.frombuffer(data[struct.calcsize(header) :], "<f4") if data else None
        self.used = 0

    def take(self, *shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        first, self.used = self.used, self.used + size
        if self.values is None:
            return np.ones(shape)
        return self.values[first : self.used].astype(np.float64).reshape(shape)


def forward(text: str, floats: Floats, image: np.ndarray | None) -> list[np.ndarray]:
    """The results [channels, height, width] of all layers for one image of that order."""
    (_, net), *layers = sections(text)
    shape = tuple(int(net[key]) for key in ("channels", "height", "width"))
    x = np.zeros(shape) if image is None else image.astype(np.float64)
    results: list[np.ndarray] = []
    for kind, options in layers:
        x = LAYERS[kind](x, options, floats, results)
        results.append(x)
    return results


def convolutional(x: np.ndarray, o: Options, floats: Floats, _: list[np.ndarray]) -> np.ndarray:
    n, size, stride, groups = (int(o.get(key, 1)) for key in ("filters", "size", "stride", "groups"))
    padding = size // 2 if int(o.get("pad", 0)) else int(o.get("padding", 0))
    normal = int(o.get("batch_normalize", 0))
    biases = floats.take(n)
    statistics = [floats.take(n) for _ in range(3)] if normal else []
    weights = floats.take(n, x.shape[0] // groups, size, size)
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    height, width = ((length - size) // stride + 1 for length in padded.shape[1:])
    y = np.zeros((n, height, width))
    for out in range(n):
        group = out // (n // groups)
        channels = slice(group * (x.shape[0] // groups), (group + 1) * (x.shape[0] // groups))
        for row in range(height):
            for column in range(width):
                place = padded[channels, row * stride : row * stride + size, column * stride : column * stride + size]
                y[out, row, column] = np.sum(place * weights[out])
    return activated(normalized(y, biases, *statistics), o.get("activation", "logistic"))


def connected(x: np.ndarray, o: Options, floats: Floats, _: list[np.ndarray]) -> np.ndarray:
    n = int(o["output"])
    biases, weights = floats.take(n), floats.take(n, x.size)
    statistics = [floats.take(n) for _ in range(3)] if int(o.get("batch_normalize", 0)) else []
    y = (weights @ x.reshape(-1)).reshape(n, 1, 1)
    return activated(normalized(y, biases, *statistics), o.get("activation", "logistic"))


def normalized(y: np.ndarray, biases: np.ndarray, *statistics: np.ndarray) -> np.ndarray:
    if statistics:
        scales, means, variances = (array[:, None, None] for array in statistics)
        y = scales * (y - means) / (np.sqrt(variances) + 1e-6)
    return y + biases[:, None, None]


def maxpool(x: np.ndarray, o: Options, *_: object) -> np.ndarray:
    stride = int(o.get("stride", 1))
    size = int(o.get("size", stride))
    padding = int(o.get("padding", size - 1))
    height, width = ((length + padding - size) // stride + 1 for length in x.shape[1:])
    y = np.full((x.shape[0], height, width), -np.inf)
    for row in range(height):
        for column in range(width):
            for i in range(size):
                for j in range(size):
                    r, c = row * stride + i - padding // 2, column * stride + j - padding // 2
                    if 0 <= r < x.shape[1] and 0 <= c < x.shape[2]:
                        y[:, row, column] = np.maximum(y[:, row, column], x[:, r, c])
    return y


def avgpool(x: np.ndarray, *_: object) -> np.ndarray:
    return x.mean(axis=(1, 2), keepdims=True)


def upsample(x: np.ndarray, o: Options, *_: object) -> np.ndarray:
    stride = int(o.get("stride", 2))
    rows, columns = (np.arange(length * stride) // stride for length in x.shape[1:])
    return x[:, rows][:, :, columns] * float(o.get("scale", 1))


def crop(x: np.ndarray, o: Options, *_: object) -> np.ndarray:
    height, width = int(o["crop_height"]), int(o["crop_width"])
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    y = x[:, top : top + height, left : left + width]
    return y if int(o.get("noadjust", 0)) else y * 2 - 1


def place(number: int, results: list[np.ndarray]) -> np.ndarray:
    return results[number if number >= 0 else len(results) + number]


def normalization(x: np.ndarray, o: Options, *_: object) -> np.ndarray:
    """As Darknet: a sum for channel 0, updated from one channel to the next."""
    size, alpha = int(o.get("size", 5)), float(o.get("alpha", 0.0001))
    norms = np.full(x.shape, float(o.get("kappa", 1)))
    for channel in range(size // 2):
        norms[0] += alpha * x[channel] ** 2
    for channel in range(1, len(x)):
        norms[channel] = norms[channel - 1]
        leaving, entering = channel - (size - 1) // 2 - 1, channel + size // 2
        if leaving >= 0:
            norms[channel] -= alpha * x[leaving] ** 2
        if entering < len(x):
            norms[channel] += alpha * x[entering] ** 2
    return x * norms ** -float(o.get("beta", 0.75))


def route(_: np.ndarray, o: Options, __: Floats, results: list[np.ndarray]) -> np.ndarray:
    groups, group = int(o.get("groups", 1)), int(o.get("group_id", 0))
    parts = []
    for number in o["layers"].split(","):
        y = place(int(number), results)
        part = len(y) // groups
        parts.append(y[group * part : (group + 1) * part])
    return np.concatenate(parts)


def shortcut(x: np.ndarray, o: Options, _: Floats, results: list[np.ndarray]) -> np.ndarray:
    y, added = x.copy(), place(int(o["from"]), results)
    stride, sample = max(added.shape[2] // x.shape[2], 1), max(x.shape[2] // added.shape[2], 1)
    channels, height, width = (min(a, b) for a, b in zip(x.shape, added.shape, strict=True))
    alpha, beta = float(o.get("alpha", 1)), float(o.get("beta", 1))
    for k in range(channels):
        for j in range(height):
            for i in range(width):
                here = k, j * sample, i * sample
                y[here] = alpha * x[here] + beta * added[k, j * stride, i * stride]
    return activated(y, o.get("activation", "linear"))


def softmax(x: np.ndarray, o: Options, *_: object) -> np.ndarray:
    parts = x.reshape(int(o.get("groups", 1)), -1) / float(o.get("temperature", 1))
    e = np.exp(parts - parts.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).reshape(x.shape)


def unchanged(x: np.ndarray, *_: object) -> np.ndarray:
    return x


LAYERS = {
    "avgpool": avgpool,
    "connected": connected,
    "convolutional": convolutional,
    "cost": unchanged,
    "crop": crop,
    "dropout": unchanged,
    "lrn": normalization,
    "maxpool": maxpool,
    "normalization": normalization,
    "route": route,
    "shortcut": shortcut,
    "softmax": softmax,
    "upsample": upsample,
}


def activated(x: np.ndarray, name: str) -> np.ndarray:
    return np.vectorize(SCALAR[name], otypes=[np.float64])(x)


def _stair(x: float) -> float:
    n = int(np.floor(x))
    return float(np.floor(x / 2) if n % 2 == 0 else (x - n) + np.floor(x / 2))


def _plse(x: float) -> float:
    if x < -4:
        return 0.01 * (x + 4)
    return 0.01 * (x - 4) + 1 if x > 4 else 0.125 * x + 0.5


def _lhtan(x: float) -> float:
    if x < 0:
        return 0.001 * x
    return 0.001 * (x - 1) + 1 if x > 1 else x


SCALAR = {
    "elu": lambda x: x if x >= 0 else np.exp(x) - 1,
    "hardtan": lambda x: -1 if x < -1 else 1 if x > 1 else x,
    "leaky": lambda x: x if x > 0 else 0.1 * x,
    "lhtan": _lhtan,
    "linear": lambda x: x,
    "loggy": lambda x: 2 / (1 + np.exp(-x)) - 1,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "plse": _plse,
    "ramp": lambda x: x * (x > 0) + 0.1 * x,
    "relie": lambda x: x if x > 0 else 0.01 * x,
    "relu": lambda x: x * (x > 0),
    "relu6": lambda x: min(max(x, 0), 6),
    "selu": lambda x: 1.0507 * x if x >= 0 else 1.0507 * 1.6732 * (np.exp(x) - 1),
    "stair": _stair,
    "tanh": lambda x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1),
}
