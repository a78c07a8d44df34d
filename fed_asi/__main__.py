"""`python -m fed_asi` is the `fed-asi` command."""

from __future__ import annotations

import sys

from fed_asi.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
