"""The profile of hypothesis for continuous integration, and the settings under which gradient properties run.

Importing this module registers the profile.
"""

from __future__ import annotations

import functools
import os
from typing import Any

PROFILE = "gradloom-ci"
"""A profile that draws the same examples in every run, without a limit of time, and prints how to repeat one."""

_HYPOTHESIS_OWN = ("default", "ci")
"""Profiles that hypothesis loads by itself: whoever is on one of these has chosen none."""


@functools.cache
def import_hypothesis() -> Any:
    """Return hypothesis, with the profile registered; raises `ImportError` that says how it is installed."""
    try:
        import hypothesis
    except ImportError as error:
        raise ImportError(
            "gradloom.testing draws examples with hypothesis: pip install hypothesis, or gradloom[test]. "
            "check_gradients works without it."
        ) from error
    hypothesis.settings.register_profile(
        PROFILE,
        derandomize=True,
        deadline=None,
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
    )
    return hypothesis


def property_settings(max_examples: int) -> Any:
    """Return the settings of a gradient property: the profile in use, or `PROFILE` if `CI` is set and none was chosen.

    Other tests keep theirs.
    """
    hypothesis = import_hypothesis()
    settings = hypothesis.settings
    chosen = settings.get_current_profile_name() if hasattr(settings, "get_current_profile_name") else "default"
    parent = settings.get_profile(PROFILE) if os.environ.get("CI") and chosen in _HYPOTHESIS_OWN else settings()
    # Compiling takes longer than hypothesis thinks an example should.
    health = [*parent.suppress_health_check, hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much]
    return settings(
        parent,
        max_examples=max_examples,
        deadline=None,
        report_multiple_bugs=False,
        # Which lines of NumPy only failing examples run explains nothing, and takes long to find out.
        phases=[phase for phase in parent.phases if phase is not hypothesis.Phase.explain],
        suppress_health_check=list(dict.fromkeys(health)),
    )


import_hypothesis()
