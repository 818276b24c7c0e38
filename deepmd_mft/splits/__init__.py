"""Splits into train, val, id_test and ood_test, one file per family.

A method is a function of values, features or names that returns a list of :class:`Fold`;
:mod:`deepmd_mft.splits.registry` lists them all, with their options and defaults.
:mod:`deepmd_mft.splits.write` turns folds into folders and ``split.json``,
:mod:`deepmd_mft.splits.record` reads that file again.
"""

from __future__ import annotations

from deepmd_mft.splits.fold import PARTS, Fold

__all__ = ["PARTS", "Fold"]
