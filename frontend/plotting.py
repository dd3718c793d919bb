"""`plot_model`: a model's layers as a drawing in a file, as in Keras, without Graphviz where none is needed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradloom.runtime.files import published

if TYPE_CHECKING:
    from os import PathLike

    from gradloom.network import Network

BITMAPS = (".png", ".pdf", ".jpg", ".jpeg")
"""Endings of files that the Graphviz binary writes."""

RANKDIRS = ("TB", "LR", "BT", "RL")


def plot_model(
    model: Network,
    to_file: str | PathLike[str] = "model.svg",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = False,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int | None = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
) -> Any:
    """Draw a model's layers into a file; return the drawing for a notebook, where it is SVG.

    to_file: its ending says the form. ".svg" and ".dot" are written without any program (".svg" from top to bottom:
    other directions are Graphviz's); ".png" and ".pdf" by Graphviz's `dot`, with `dpi` dots an inch.
    show_layer_names: names in front of the layers' kinds. rankdir: the direction, "TB", "LR", "BT" or "RL".
    expand_nested: show the layers inside of nested models in their place. Keras's default file is "model.png".
    The file is replaced as a whole or not at all. Raises `ValueError` for another ending or direction and for a model
    that is not built, `FileNotFoundError` where the folder is not there, `ImportError` where Graphviz would be needed
    and is not there.
    """
    from gradloom.compiler.views import draw_dot, draw_svg, picture_of_network
    from gradloom.inspection.layer_calls import Shown, layer_network
    from gradloom.network import Network

    if not isinstance(model, Network):
        raise TypeError(f"Expected a model. Received: {model!r}")
    path = Path(to_file)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Expected to_file in a folder that is there. Received: to_file={str(to_file)!r}")
    suffix = path.suffix.lower()
    if suffix not in (".svg", ".dot", *BITMAPS):
        raise ValueError(f"Expected to_file ending in .svg, .dot, {', '.join(BITMAPS)}. Received: to_file={to_file!r}")
    if rankdir not in RANKDIRS:
        raise ValueError(f"Expected rankdir as one of {', '.join(RANKDIRS)}. Received: rankdir={rankdir!r}")
    model.require_built("plot_model")
    shown = Shown(show_shapes, show_dtype, show_layer_names, show_layer_activations, show_trainable)
    picture = picture_of_network(layer_network(model, expand_nested, shown))
    if suffix == ".svg" and rankdir == "TB":
        text = draw_svg(picture)
        _write(path, text.encode())
        return Drawing(text)
    source = draw_dot(picture, rankdir, None if suffix == ".svg" else dpi)
    if suffix == ".dot":
        _write(path, source.encode())
    else:
        _write(path, _run_graphviz(source, path.suffix[1:].lower()))
    return None


class Drawing:
    """An SVG that a notebook shows."""

    def __init__(self, svg: str) -> None:
        self._svg = svg

    def _repr_svg_(self) -> str:
        return self._svg


def _write(path: Path, content: bytes) -> None:
    with published(path) as file:
        file.write(content)


def _run_graphviz(source: str, form: str) -> bytes:
    """What Graphviz makes of a graph, in the form of a file with that ending."""
    binary = shutil.which("dot")
    if binary is None:
        raise ImportError(
            f"Expected Graphviz's program `dot` to write .{form} files; its packages are called graphviz "
            "(apt-get install graphviz, brew install graphviz, conda install graphviz). Received: none on the PATH. "
            "Files ending in .svg (rankdir='TB') and .dot need no program"
        )
    done = subprocess.run([binary, f"-T{form}"], input=source.encode(), capture_output=True)
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip()
        raise OSError(f"Expected .{form} to be written by {binary}. Received: {told}")
    return done.stdout
