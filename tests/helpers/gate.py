"""The checks before a training, called as `dp --pt train` calls them."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from deepmd_mft.inputs.gate import check_command


def run_gate(config: dict[str, Any], folder: Path, **options: Any) -> None:
    """Check an input; raises UserError as the command would stop."""
    path = folder / "gate.json"
    path.write_text(json.dumps(config))
    given = {"finetune": None, "init_model": None, "restart": None, "skip_neighbor_stat": False}
    before = Path.cwd()
    os.chdir(folder)  # where the start is recorded
    try:
        check_command(argparse.Namespace(command="train", INPUT=str(path), **{**given, **options}))
    finally:
        os.chdir(before)
