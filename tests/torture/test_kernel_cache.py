"""One folder of compiled programs under many processes, damaged entries, and processors of two kinds."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import children
import pytest
import workloads
from workloads import Outcome

from gradloom.compiler.llvm.target import host_levels

Times = Callable[[int, int], int]


def worked(child: children.Child) -> Outcome:
    return Outcome(*child.result())


def at_once(environments: Sequence[dict[str, str]]) -> list[Outcome]:
    """What processes compute that start at the same time."""
    return [worked(child) for child in [children.start(workloads.work, environment) for environment in environments]]


class References:
    """What `work` computes where it finds nothing, by target, and the folder that it leaves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Outcome] = {}

    def folder(self, target: str = "") -> Path:
        return self._folder / (target or "native")

    def of(self, target: str = "") -> Outcome:
        if target not in self._known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("GRADLOOM_CACHE_DIR", str(self.folder(target)))
                patch.setenv("GRADLOOM_TARGET", target)
                self._known[target] = workloads.work()
            assert self._known[target].hits == 0 and self._known[target].compilations > 0
        return self._known[target]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> References:
    return References(tmp_path_factory.mktemp("references"))


def check_hits(outcomes: Sequence[Outcome]) -> None:
    """At least 99 of 100 programs were found, and no code was generated for those."""
    hits, misses = sum(outcome.hits for outcome in outcomes), sum(outcome.misses for outcome in outcomes)
    assert hits >= 0.99 * (hits + misses) and hits > 0
    assert misses or not any(outcome.compilations for outcome in outcomes)


def test_processes_that_start_cold_on_one_folder(tmp_path: Path, times: Times, references: References) -> None:
    expected = references.of()
    warm: list[Outcome] = []
    for turn in range(times(1, 10)):
        environments = [{"GRADLOOM_CACHE_DIR": str(tmp_path / str(turn))}] * times(2, 16)
        cold = at_once(environments)
        assert {outcome.results for outcome in cold} == {expected.results}
        assert sum(outcome.misses for outcome in cold) >= expected.misses
        warm += at_once(environments[: times(1, 16)])
        assert not list((tmp_path / str(turn)).glob(".*"))  # nothing half written is left
    assert {outcome.results for outcome in warm} == {expected.results}
    check_hits(warm)


def truncated(entry: bytes, draw: random.Random, entries: Sequence[bytes]) -> bytes:
    return entry[: draw.choice([0, 1, 8, 40, 72, len(entry) - 1, draw.randrange(len(entry))])]


def with_flipped_bits(entry: bytes, draw: random.Random, entries: Sequence[bytes]) -> bytes:
    damaged = bytearray(entry)
    reach = draw.choice([8, 72, 400, len(entry)])  # magic, sums, header, everything
    for position in draw.sample(range(min(reach, len(entry))), draw.choice([1, 1, 2, 8])):
        damaged[position] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def with_zeroed_block(entry: bytes, draw: random.Random, entries: Sequence[bytes]) -> bytes:
    """As after a power failure, where a file has its length but not all of its pages."""
    start = draw.choice([start for start in range(0, len(entry), 512) if any(entry[start : start + 512])])
    return entry[:start] + bytes(len(entry[start : start + 512])) + entry[start + 512 :]


def extended(entry: bytes, draw: random.Random, entries: Sequence[bytes]) -> bytes:
    return entry + draw.randbytes(draw.randrange(1, 100))


def of_another_program(entry: bytes, draw: random.Random, entries: Sequence[bytes]) -> bytes:
    return draw.choice([other for other in entries if other != entry])


DAMAGES = [truncated, with_flipped_bits, with_zeroed_block, extended, of_another_program]


def damage(folder: Path, draw: random.Random) -> dict[str, str]:
    """Damage every entry of a folder; return how, by its name."""
    paths = sorted(folder.glob("*.program"))
    entries, done = [path.read_bytes() for path in paths], {}
    for path, entry in zip(paths, entries, strict=True):
        kind = draw.choices(DAMAGES, [4, 4, 1, 1, 1])[0]
        path.write_bytes(kind(entry, draw, entries))
        done[path.name] = kind.__name__
    return done


def test_damaged_entries_are_made_anew(tmp_path: Path, times: Times, references: References) -> None:
    expected = references.of()
    folder = tmp_path / "damaged"
    shutil.copytree(references.folder(), folder)
    environment, draw = {"GRADLOOM_CACHE_DIR": str(folder)}, random.Random(0)
    seen = 0
    while seen < times(1, 200):
        damaged = damage(folder, draw)
        seen += len(damaged)
        assert worked(children.start(workloads.work, environment)) == expected, damaged
    found = worked(children.start(workloads.work, environment))
    assert found == Outcome(expected.results, expected.misses, 0, 0)


def test_targets_share_a_folder(tmp_path: Path, times: Times, references: References) -> None:
    targets = [*host_levels()[:-1], ""] if times(0, 1) else [host_levels()[0], ""]
    expected = {target: references.of(target) for target in targets}
    for turn in range(times(1, 10)):
        folder = tmp_path / str(turn)
        environments = [{"GRADLOOM_CACHE_DIR": str(folder), "GRADLOOM_TARGET": target} for target in targets]
        again = [environment for environment in environments for _ in range(times(1, 4))]
        outcomes = at_once(again), at_once(again)
        for environment, first, second in zip(again, *outcomes, strict=True):
            target = environment["GRADLOOM_TARGET"]
            assert {first.results, second.results} == {expected[target].results}, (target, turn)
        check_hits(outcomes[1])
        assert sum(1 for _ in folder.glob("*.program")) == sum(one.misses for one in expected.values())
