"""`python -m service` is `kvatlas`."""

from __future__ import annotations

import sys

from service.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
