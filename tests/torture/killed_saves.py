"""Saves a model in each format, again and again, in children that are killed at random moments.

    python killed_saves.py FOLDER KILLS SEED

All weights of a model that is saved are its number, so that a file tells which one it holds, and whether it is one.
Goes on until half of so many kills fell into a save, and of a hundred and more a twentieth into that of each format: at
which moment a child is killed is chance. Prints how often a child was killed while it saved, as JSON by suffix. With
`save` and a first number behind FOLDER it is such a child.
"""

from __future__ import annotations

import itertools
import json
import random
import select
import subprocess
import sys
from pathlib import Path

import numpy as np

import gradloom as gl

WIDTH = 200
"""Of the layers: a file has a quarter of a megabyte."""
LONGEST_LIFE = 0.1
"""Seconds from the first sign of a child to its end, at most."""
MOST_TRIALS = 10
"""For every kill that is asked for."""
SUFFIXES = (".gradloom", ".safetensors", ".weights.h5")


def new_model() -> gl.Sequential:
    layers = [gl.Input((WIDTH,)), gl.layers.Dense(WIDTH), gl.layers.BatchNormalization(), gl.layers.Dense(WIDTH)]
    return gl.Sequential(layers, name="net")


def save(folder: Path, first: int) -> None:
    """Save for ever, saying before (+) and after (-) each file its suffix and number."""
    model = new_model()
    for number in itertools.count(first):
        model.set_weights([np.full_like(weights, number) for weights in model.get_weights()])
        for suffix in SUFFIXES:
            path = folder / f"net{suffix}"
            print(f"+ {suffix} {number}", flush=True)
            model.save(path) if suffix == ".gradloom" else model.save_weights(path)
            print(f"- {suffix} {number}", flush=True)


def saved_number(path: Path) -> int:
    """The number of the model that a file holds."""
    if path.suffix == ".gradloom":
        model = gl.models.load_model(path)
    else:
        model = new_model()
        model.load_weights(path)
    (number,) = {float(weight) for weights in model.get_weights() for weight in np.unique(weights)}
    return int(number)


def main(folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    folder.mkdir()
    finished = dict.fromkeys(SUFFIXES, 0)
    while_saving = dict.fromkeys(SUFFIXES, 0)
    for kill in range(1, MOST_TRIALS * kills + 1):
        seen = while_saving.values()
        if kill > kills and sum(seen) >= kills // 2 and (kills < 100 or min(seen) >= kills // 20):
            break
        command = [sys.executable, __file__, str(folder), "save", str(1000 * kill)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
            assert child.stdout is not None
            select.select([child.stdout], [], [])
            select.select([], [], [], rng.uniform(0, LONGEST_LIFE))
            child.kill()
            lines = [line.split() for line in child.stdout.read().splitlines()]
        for sign, suffix, number in lines:
            if sign == "-":
                finished[suffix] = int(number)
        sign, suffix, number = lines[-1]
        while_saving[suffix] += sign == "+"
        for name in SUFFIXES:
            wanted = {finished[name], *([int(number)] if name == suffix else [])}
            path = folder / f"net{name}"
            found = saved_number(path) if path.exists() else 0
            assert found in wanted, f"{path.name} holds {found}, not one of {wanted}: kill {kill}, seed {seed}"
            finished[name] = found
    print(json.dumps(while_saving))


if __name__ == "__main__":
    if sys.argv[2] == "save":
        save(Path(sys.argv[1]), int(sys.argv[3]))
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
