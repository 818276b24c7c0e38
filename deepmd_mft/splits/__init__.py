"""Splits into train, val, id_test and ood_test, one file a family.

Every family is a function of values, features or names that returns a list of
:class:`Fold`; nothing in it touches files. :mod:`deepmd_mft.splits.write` turns folds
into folders and ``split.json``.
"""

from __future__ import annotations

from deepmd_mft.splits.fold import PARTS, Fold

__all__ = ["PARTS", "Fold"]
