"""The table of ``benchmarks/speed.py`` on a GPU, in wall times and GPU memory.

python benchmarks/speed_gpu.py [the options of speed.py]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from speed import main

if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("no GPU here")
    os.environ["DEVICE"] = "cuda"
    sys.exit(main(gpu=True))
