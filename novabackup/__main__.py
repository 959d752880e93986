"""``python -m novabackup`` is the command ``novabackup``."""

import sys

from novabackup.cli import main

if __name__ == "__main__":
    sys.exit(main())
