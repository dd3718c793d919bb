"""Runs commands within the test's process, and the script that they look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradloom.command import main

SCRIPT = """
import gradloom as gl
import neighbour

print("loading")

def build():
    return gl.Sequential([gl.layers.Dense(3, activation="relu", input_shape=(neighbour.SIZE,))], name="built")

model = build()
model.compile("sgd", "mse")
plain = build()

class Holder:
    inner = plain

if __name__ == "__main__":
    raise SystemExit("the main part ran")
"""

NORMALIZED = """
import gradloom as gl
model = gl.Sequential(
    [gl.Input((5,)), gl.layers.Dense(3, name="dense"), gl.layers.BatchNormalization(name="normalization")], name="model"
)
"""


def write_script(folder: Path) -> str:
    """Write the script and its neighbour; return its path."""
    (folder / "neighbour.py").write_text("SIZE = 5\n")
    path = folder / "script.py"
    path.write_text(SCRIPT)
    return str(path)


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that succeeds prints."""
    assert main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def error(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """What a command that fails says, below what the script printed: five lines at most."""
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == "" or code != 1
    message = captured.err.removeprefix("loading\n")
    assert "Traceback" not in message and 1 <= len(message.splitlines()) <= 5
    return message.rstrip("\n")
