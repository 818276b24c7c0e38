"""The console script ``dp-mft``: one thin module a verb."""

from deepmd_mft.cli.main import main

__all__ = ["main"]
