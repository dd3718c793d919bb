"""What all tests share: a cache of their own, a fixed seed, graphs that read back, hypothesis without deadlines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

import gradloom as gl
from graph_texts import GraphTexts

hypothesis.settings.register_profile("gradloom", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("gradloom")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep compiled code away from the user's cache, so that tests compile what they run."""
    before = os.environ.get("GRADLOOM_CACHE_DIR")
    os.environ["GRADLOOM_CACHE_DIR"] = str(Path(tmp_path_factory.mktemp("cache")))
    yield
    if before is None:
        del os.environ["GRADLOOM_CACHE_DIR"]
    else:
        os.environ["GRADLOOM_CACHE_DIR"] = before


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Begin every test with the same weights and names, whatever ran before it."""
    gl.utils.clear_session()
    gl.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _graph_texts() -> Iterator[GraphTexts]:
    with pytest.MonkeyPatch.context() as patch:
        yield GraphTexts(patch)


@pytest.fixture(autouse=True)
def _every_graph_reads_back(_graph_texts: GraphTexts) -> Iterator[None]:
    """Hold every graph that a test builds to `parse(str(graph)) == graph`."""
    yield
    _graph_texts.check()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what tests produce to tests/golden")
    parser.addoption("--torture", action="store_true", help="run tests/torture in full: an hour or two, not minutes")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the file of that name in tests/golden; with --update-golden, write the file instead."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing: run pytest --update-golden, and read what it wrote"
        assert text == path.read_text(encoding="utf-8"), f"not as in {path}; if it should, run pytest --update-golden"

    return compare


@pytest.fixture(scope="session")
def times(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """How often to do a thing: `times(short, full)` is `full` with --torture."""
    return lambda short, full: full if request.config.getoption("--torture") else short
