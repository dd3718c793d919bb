"""The package as a whole: what a wheel holds, which way imports flow, what importing costs, how modules are named."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"frontend": "gradloom", "compiler": "gradloom.compiler", "runtime": "gradloom.runtime"}

COMPILER_ORDER = [
    {"types"},
    {"loops"},
    {"provenance"},
    {"ir"},
    {"ops"},
    {"interpreter", "ir_parser", "reducer", "views"},  # what reads whole graphs and knows every op
    {"autodiff", "nonfinite"},
    {"choices"},
    {"passes"},
    {"kernels"},
    {"schedule"},
    {"llvm"},
    {"options"},
    {"pipeline"},
    {"autotune"},
]
"""Parts of the compiler: each imports from its left only, and neighbours in one place not from each other."""
SHARED = {"cached", "collection", "errors", "forks", "growing", "program"}
"""Parts of the compiler that know no other but types, and that every part may import."""
RUNTIME_MAY_IMPORT = {f"gradloom.compiler.{part}" for part in ("cached", "errors", "forks", "program", "types")}
LAZY = [
    "llvmlite",
    "ml_dtypes",
    "networkx",
    "graphviz",
    "hypothesis",
    "PIL",
    "tqdm",
    "matplotlib",
    "safetensors",
    "h5py",
]


def module_files() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    modules = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            modules[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return modules


def imported(path: Path, modules: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Line and name of every module of Gradloom that a file imports, inside functions too, but not for types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            # `from gradloom.compiler import ir` names a module, `from gradloom.compiler.ir import Graph` a part of one.
            candidates = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else str(node.module) for name in candidates]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "gradloom")


def compiler_part(module: str) -> str:
    """The part that a module of the compiler belongs to: `gradloom.compiler.loops.index` to `loops`."""
    part = module.split(".")[2] if module.count(".") >= 2 else ""
    return {"ir_text": "ir", "memory": "schedule", "barriers": "schedule"}.get(part, part)


def arrow_back(importer: str, target: str) -> bool:
    """Whether an import breaks the one-way flow: front end → compiler and runtime; inside the compiler to the left."""
    if importer.startswith("gradloom.runtime"):
        return not (target.startswith("gradloom.runtime") or target in RUNTIME_MAY_IMPORT)
    if not importer.startswith("gradloom.compiler"):
        return False
    if not target.startswith("gradloom.compiler"):
        return True
    source, destination = compiler_part(importer), compiler_part(target)
    if source == destination or not source:
        return False
    if source in SHARED:
        return destination not in ({"types"} | SHARED)
    if destination in SHARED:
        return False
    places = {part: place for place, parts in enumerate(COMPILER_ORDER) for part in parts}
    assert source in places, f"{importer}: which part of the compiler is it? Known: {sorted(places)}"
    return destination not in places or places[destination] >= places[source]


def test_imports_flow_one_way() -> None:
    modules = module_files()
    back = [
        f"{path.relative_to(ROOT)}:{line}: {name} imports {target}"
        for name, path in modules.items()
        for line, target in imported(path, modules)
        if arrow_back(name, target)
    ]
    assert not back, "\n".join(back)


@pytest.mark.parametrize(
    ("importer", "target", "back"),
    [
        ("gradloom.models", "gradloom.compiler.ir", False),
        ("gradloom.compiler.ir", "gradloom.models", True),
        ("gradloom.compiler.ir", "gradloom.runtime.executable", True),
        ("gradloom.compiler.ops.base", "gradloom.compiler.loops.builder", False),
        ("gradloom.compiler.loops.builder", "gradloom.compiler.ops.base", True),
        ("gradloom.compiler.ir", "gradloom.compiler.passes.fuse", True),
        ("gradloom.runtime.executable", "gradloom.compiler.program", False),
        ("gradloom.runtime.executable", "gradloom.compiler.ir", True),
        ("gradloom.runtime.executable", "gradloom.layers", True),
    ],
)
def test_arrows_that_run_back_are_seen(importer: str, target: str, back: bool) -> None:
    assert arrow_back(importer, target) is back


def test_only_the_llvm_part_speaks_llvmlite_ir() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in module_files().values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("llvmlite.ir."))
        or (isinstance(node, ast.ImportFrom) and node.module == "llvmlite" and any(a.name == "ir" for a in node.names))
        or (isinstance(node, ast.Import) and any(f"{a.name}.".startswith("llvmlite.ir.") for a in node.names))
    }
    assert {Path(user).parent.as_posix() for user in users} <= {"compiler/llvm"}


def test_every_folder_with_python_files_is_listed_as_a_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = set()
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            folders.add(".".join([package, *path.parent.relative_to(ROOT / folder).parts]))
    assert sorted(listed) == sorted(folders)


def test_modules_of_the_tests_have_names_of_their_own() -> None:
    """pytest imports a folder without `__init__.py` as top-level modules: two of one name break the collection."""
    folders: dict[str, list[str]] = {}
    for path in (ROOT / "tests").rglob("*.py"):
        if path.name != "conftest.py":
            folders.setdefault(path.name, []).append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in folders.items() if len(paths) > 1} == {}


def test_a_wheel_holds_the_files_of_the_folders(tmp_path: Path) -> None:
    # Built from a copy, since setuptools leaves build folders beside its sources.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", *FOLDERS):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--wheel-dir", str(tmp_path), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("gradloom-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = set()
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}")
    assert packed == expected


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.smoke
def test_importing_is_light_and_silent() -> None:
    loaded = run(f"import gradloom, sys; print([name for name in {LAZY} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_modules_of_the_compiler_and_data_sets_come_with_the_import() -> None:
    run("import gradloom as gl; gl.compiler.parse; gl.datasets.fashion_mnist.load_data; gl.datasets.synthetic_fashion")


def test_no_module_has_the_name_of_a_function_of_its_package() -> None:
    """Importing the module later would put it in the function's place."""
    clashes = run(
        f"""
import importlib, types
for name in {sorted(module_files())}:
    package, _, attribute = name.rpartition(".")
    if package and attribute != "__main__":
        found = getattr(importlib.import_module(package), attribute, None)
        if found is not None and not isinstance(found, types.ModuleType):
            print(name)
"""
    )
    assert clashes == ""


def test_a_network_written_in_python_needs_neither_http_nor_cfg_files() -> None:
    unneeded = ["urllib.request", "http.client", "gradloom.formats.darknet.cfg", "gradloom.formats.darknet.network"]
    loaded = run(
        "import sys, gradloom as gl; gl.applications.Darknet53; gl.formats.darknet.load_weights\n"
        f"print([name for name in {unneeded} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"
