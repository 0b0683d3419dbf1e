"""``python -m streamware``: the same as the ``streamware`` command."""

from __future__ import annotations

import sys

from streamware.server.cli import main

if __name__ == "__main__":
    sys.exit(main())
