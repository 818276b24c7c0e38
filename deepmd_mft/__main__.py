"""``python -m deepmd_mft``: the console script ``dp-mft``."""

import sys

from deepmd_mft.cli import main

sys.exit(main())
