"""Damaged files: only documented exceptions, no signal, no hang, no memory to speak of, nothing wrong in silence.

A mutant is repeated by its seed: `python -m malformed.child FORMAT FOLDER SEED SEED+1` in tests/.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from malformed import parent
from malformed.faulty import FAULTS
from malformed.parent import VALID, read_mutants, wrong

SHORT, FULL = 25, 2000
STARTED = 3, 60
"""Of mutants that a process is started for."""

DOCUMENTED = {
    "idx": {"DataFileError"},
    "gzip": {"DataFileError"},
    "cfg": {"CfgError"},
    "weights": {"WeightsError"},
    "safetensors": {"SavedFileError"},
    "gradloom": {"SavedFileError"},
    "h5": {"SavedFileError"},
    "started": {"SavedFileError"},
    "ir": {"ParseError"},
    "cache": {"miss"},
}
"""What readers raise for a file that is none of theirs, as their docstrings say: a damaged cache entry is no error."""


def test_every_fault_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "SECONDS", 0.5)
    reports = list(read_mutants("faulty", tmp_path, 0, len(FAULTS)))
    assert [report.outcome for report in reports if report.seed != VALID] == [
        "read",
        "SIGSEGV",
        "hang",
        "read",
        "LookupError",
        "AssertionError",
        "hang",
        "read",
        "read",
    ]
    assert [report.seed for report in wrong(reports, {"ValueError"})] == [1, 2, 3, 4, 5, 6, 7]
    assert [report.seed for report in wrong(reports, {"LookupError"})] == [1, 2, 3, 5, 6, 7]
    assert (tmp_path / "faulty-1").read_bytes() == b"crash"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_mutants_are_refused_or_read_rightly(name: str, tmp_path: Path, times: Callable[[int, int], int]) -> None:
    reports = list(read_mutants(name, tmp_path, 0, times(*(STARTED if name == "started" else (SHORT, FULL)))))
    found = wrong(reports, DOCUMENTED[name])
    mutants = [report for report in reports if report.seed != VALID]
    outcomes = Counter(report.outcome for report in mutants)
    print(
        f"{name}: {dict(outcomes)}; worst: {max(report.seconds for report in mutants):.2f} s, "
        f"{max(report.nbytes for report in mutants) >> 20} MB"
    )
    assert not found, f"{len(found)} of {len(mutants)} mutants:\n" + "\n".join(map(str, found[:20]))
    # Some damage is none: to space, to what stands for itself, and what ends as it began.
    valid = {report.outcome for report in reports if report.seed == VALID}
    refused = sum(outcomes[outcome] for outcome in set(outcomes) - valid)
    assert 2 * refused > len(mutants), f"most mutants are read like what is valid: {outcomes}"
