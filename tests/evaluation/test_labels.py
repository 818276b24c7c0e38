"""Sets that a model is compared with have its labels in one unit."""

import json

import numpy as np
import pytest

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.labels import check_units
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.systems import write_system


def test_two_units_of_one_label(tmp_path):
    """Each set had its errors; those of one were wrong by a factor."""
    sets = []
    for name, units in {
        "id_test": {"gap": "eV"},
        "far": {},
        "ood_test": {"gap": "Hartree"},
    }.items():
        path = write_system(tmp_path / name, symbols="C H", gap=np.ones((3, 1)))
        (path / "dataset.json").write_text(json.dumps({"units": units}))
        sets.append(StructureSet(name, [path]))
    check_units(sets[:2], ["gap"])
    check_units(sets, ["homo"])  # what is not predicted may be in any
    with pytest.raises(UserError, match="gap is in eV in id_test, but in Hartree in ood_test; "):
        check_units(sets, ["gap"])
