"""Labels of forces are those of every atom, or a message."""

import numpy as np
import pytest

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.force_field import atomic_labels
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.systems import write_system


@pytest.mark.parametrize("width", [3, 5])
def test_forces_of_too_few_atoms(tmp_path, width):
    """Those of one atom were given to all, or there was a traceback."""
    system = write_system(tmp_path / "a", symbols="C H", force=np.ones((3, width)))
    with pytest.raises(UserError, match=rf"force of a:0 has {width} numbers, but 6 are needed"):
        atomic_labels(StructureSet("a", [system]), "force", 3)


def test_forces_of_all_atoms(tmp_path):
    force = np.arange(18.0).reshape(3, 6)
    system = write_system(tmp_path / "a", symbols="C H", force=force)
    found = atomic_labels(StructureSet("a", [system]), "force", 3)
    np.testing.assert_array_equal(found, force.reshape(-1, 3))
