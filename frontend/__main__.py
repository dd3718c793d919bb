"""`python -m gradloom`: the command line."""

import io
import sys

from gradloom.plain_text import PLAIN

INTERRUPTED = 130

if __name__ == "__main__":
    try:
        # Importing the commands takes long enough for Ctrl-C to come in between.
        from gradloom.command import main

        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors=PLAIN)
        code = main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)
