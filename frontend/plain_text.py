"""Text for an output whose encoding lacks characters: an error handler that codecs know as `PLAIN`."""

from __future__ import annotations

import codecs

PLAIN = "gradloom.plain"
"""The `errors` of an encoding or a stream for which signs are alike ones of ASCII, and other characters escapes."""

# One for one: columns stay aligned.
_ALIKE = str.maketrans(
    "┌┬┐├┼┤└┴┘─│→↑…·×−–∂µ²▏▎▍▌▋▊▉█",
    "+++++++++-|>^.*x--du2|||#####",
)


def _alike(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].translate(_ALIKE)
    return lacking.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(PLAIN, _alike)
