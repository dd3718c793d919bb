"""Trains in children that are killed at random moments, most of them while a checkpoint is being written.

    python killed_trainings.py FOLDER KILLS SEED

Each child goes on where the checkpoint says, until one comes to the end; then a new training begins. Prints one line of
JSON, with how often children were killed, how often while they saved, and how many trainings came to their end.
Children are forked from a process that has loaded Gradloom and computed nothing.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sys
from pathlib import Path

import trainings

import gradloom as gl
import gradloom.runtime.executable
from gradloom.saving.checkpoint import Checkpoint

WIDTH = 4096
"""Of the hidden layer: with its slots a checkpoint has a megabyte and a half, and takes as long as some steps do."""
LONGEST_LIFE = 0.3
"""Seconds from the first sign of a child to its end, at most."""
MOST_TRIALS = 10
"""For every kill that is asked for."""


class Reporter(gl.callbacks.BackupAndRestore):
    """Says before (+) and after (-) each checkpoint which one it is, by its number of steps."""

    def __init__(self, folder: Path, pipe: int) -> None:
        super().__init__(folder, save_freq=1)
        self.pipe = pipe

    def on_train_begin(self, logs: object = None) -> None:
        super().on_train_begin()
        self.say("-", self.steps)

    def on_train_end(self, logs: object = None) -> None:
        self.say(".", 0)  # the steps of no checkpoint: it is deleted
        super().on_train_end()

    def _save(self) -> None:
        self.say("+", self.steps)
        super()._save()
        self.say("-", self.steps)

    @property
    def steps(self) -> int:
        return int(self.model.optimizer.iterations)  # type: ignore[union-attr]

    def say(self, sign: str, value: object) -> None:
        os.write(self.pipe, f"{sign}{value}\n".encode())


def child(folder: Path | None) -> tuple[int, int]:
    """Start a child that trains, saving into a folder; return its process and the pipe that it reports to."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    status = 1
    try:
        callbacks = [] if folder is None else [Reporter(folder, writing)]
        os.write(writing, f"={trainings.fit(trainings.new_model(WIDTH), callbacks)}\n".encode())
        status = 0
    finally:
        os._exit(status)


def report(pipe: int, seconds: float | None) -> str:
    """What a child says: all of it, or for so many seconds after its first word; then it is to be killed."""
    text = os.read(pipe, 1).decode()
    timer = None if seconds is None else os.times().elapsed + seconds
    while True:
        left = None if timer is None else max(0.0, timer - os.times().elapsed)
        if not select.select([pipe], [], [], left)[0]:
            return text
        if not (part := os.read(pipe, 65536)):
            return text
        text += part.decode()


def saved_steps(folder: Path) -> int:
    """How many steps the checkpoint has, 0 if there is none; it is read whole, with its checksum."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0
    checkpoint = Checkpoint.read(path)
    entries = checkpoint.state["variables"]["optimizer"]
    name = next(entry["array"] for entry in entries if entry["path"].endswith("/iterations"))
    return int(checkpoint.arrays[name])


def main(folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    trainings.new_model(WIDTH).train_graph(trainings.BATCH_SIZE)  # loads what children would load
    process, pipe = child(None)
    expected = report(pipe, None)
    assert os.waitpid(process, 0)[1] == 0 and expected.startswith("=")
    counts = {"kills": 0, "while saving": 0, "finished": 0}
    while True:
        # How many are killed while they save is chance: it goes on until enough of them were.
        enough = counts["kills"] >= (kills if counts["while saving"] >= kills // 4 else MOST_TRIALS * kills)
        if enough and counts["finished"]:
            break
        life = None if enough else rng.uniform(0, LONGEST_LIFE)
        process, pipe = child(folder)
        text = report(pipe, life)
        os.kill(process, signal.SIGKILL)
        while part := os.read(pipe, 65536):
            text += part.decode()
        os.close(pipe)
        _, status = os.waitpid(process, 0)
        lines = [line for line in text.split("\n") if line]
        if lines and lines[-1].startswith("="):
            assert lines[-1] + "\n" == expected, f"a resumed training ended otherwise, after {counts}, seed {seed}"
            counts["finished"] += 1
            shutil.rmtree(folder)
            continue
        assert os.WIFSIGNALED(status), f"a child failed after {counts}, seed {seed}"
        counts["kills"] += 1
        counts["while saving"] += lines[-1].startswith("+")
        written = [int(line[1:]) for line in lines if line.startswith("-")]
        wanted = {written[-1], int(lines[-1][1:])}
        assert saved_steps(folder) in wanted, f"{saved_steps(folder)} steps, not {wanted}, after {counts}, seed {seed}"
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
