"""deepmd-kit's neighbour search."""

import numpy as np
import pytest
import torch

from deepmd_mft.bridge.neighbours import NeighbourLists, count_neighbours
from tests.helpers.models import build_property, frame


@pytest.mark.parametrize("rcut", [2.5, 3.5, 4.2])
@pytest.mark.parametrize("periodic", [True, False])
def test_neighbours_are_counted_by_deepmds_own_search(rcut, periodic):
    """A cube of side 6 with one atom per 3 x 3 x 3: shells of 6, 12 and 8 at 3, 4.24, 5.2."""
    coord = 3.0 * np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    got = count_neighbours(coord, 6.0 * np.eye(3) if periodic else None, rcut)
    shells = 0 if rcut < 3 else (6 if periodic else 3)
    np.testing.assert_array_equal(got, shells)


def test_neighbour_lists_are_kept_per_batch():
    """The function that the models call to build them is replaced for a while."""
    model = build_property()
    lists = NeighbourLists()
    coord, atype, _ = frame()
    expected = model(coord, atype)["gap"]
    with lists.kept():
        lists.choose(0)
        torch.testing.assert_close(model(coord, atype)["gap"], expected)
        again = model(coord + 0.1 * torch.rand_like(coord), atype)["gap"]
        torch.testing.assert_close(again, expected)  # the coordinates are part of what is kept
        lists.choose(1)
        assert not torch.equal(model(1.1 * coord, atype)["gap"], expected)
