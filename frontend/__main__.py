"""`python -m gradloom`: the command line."""

import sys

from gradloom.command import main

if __name__ == "__main__":
    sys.exit(main())
