"""`python -m sage_nb`: the same as `sage-nb`."""

from __future__ import annotations

import sys

from sage_nb.cli import main

if __name__ == "__main__":
    sys.exit(main())
