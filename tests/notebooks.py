"""Runs the code of notebooks, without Jupyter: cell by cell, with what each prints and what its last expression shows.

    python tests/notebooks.py examples/inspection.ipynb        stores what is shown in the notebook

A cell tagged "varies" shows times, or what depends on the data at hand: only the kinds of its outputs are compared.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from doc_pages import module_for, own_surroundings

Notebook = dict[str, Any]
Output = dict[str, Any]


def read(path: Path) -> Notebook:
    """The notebook in a file."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    """The cells that hold code, in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(path: Path) -> list[list[Output]]:
    """Run a notebook from a folder of its own, and return what each code cell shows; exceptions are raised."""
    shown = []
    with module_for(path.stem) as module, own_surroundings():
        for count, cell in enumerate(code_cells(read(path)), 1):
            name = f"{path.name}[{count}]"
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                value = _run("".join(cell["source"]), name, module.__dict__)
            shown.append([*_printed(stream.getvalue()), *_result(value, count)])
    return shown


def differences(notebook: Notebook, shown: list[list[Output]]) -> list[str]:
    """Where the stored outputs are others than those that cells show."""
    found = []
    for count, (cell, now) in enumerate(zip(code_cells(notebook), shown, strict=True), 1):
        stored = cell["outputs"]
        varies = "varies" in cell["metadata"].get("tags", ())
        same = [_kinds(output) for output in stored] == [_kinds(output) for output in now] if varies else stored == now
        if not same:
            found.append(f"cell {count} shows other things than are stored:\n{''.join(cell['source'])}")
    return found


def store(path: Path) -> None:
    """Run a notebook and write its outputs into it."""
    notebook, shown = read(path), outputs(path)
    for count, (cell, now) in enumerate(zip(code_cells(notebook), shown, strict=True), 1):
        cell["outputs"], cell["execution_count"] = now, count
    path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(shown)} cells, {path.stat().st_size / 1e3:.0f} kB")


def _run(source: str, name: str, names: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line if that is an expression."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), name, "eval"), names)


def _printed(text: str) -> list[Output]:
    return [{"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}] if text else []


def _result(value: Any, count: int) -> list[Output]:
    """A value in the forms in which it shows itself: as HTML, or else as a picture, and as text for the rest."""
    if value is None:
        return []
    data = {}
    for kind, method in (("text/html", "_repr_html_"), ("image/svg+xml", "_repr_svg_")):
        if hasattr(value, method) and not data:
            data[kind] = getattr(value, method)().splitlines(keepends=True)
    data["text/plain"] = repr(value).splitlines(keepends=True)
    return [{"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"}]


def _kinds(output: Output) -> tuple[str, list[str]]:
    return output["output_type"], sorted(output.get("data", ()))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        store(Path(argument).resolve())
