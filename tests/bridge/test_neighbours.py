"""deepmd-kit's neighbour search."""

import importlib

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


def test_atoms_of_other_cells_have_the_same_neighbours():
    """As of a simulation whose atoms were not put back; at the cutoff, as the lists take them."""
    coord = 3.0 * np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    coord += 6.0 * np.random.default_rng(0).integers(-5, 6, coord.shape)
    np.testing.assert_array_equal(count_neighbours(coord, 6.0 * np.eye(3), 3.0), 6)
    np.testing.assert_array_equal(count_neighbours(coord, 6.0 * np.eye(3), 4.5), 18)


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


def test_lists_are_remembered_as_far_as_there_is_room():
    """deepmd-kit's own lists, of which the second does not fit; results are the same."""
    make_model = importlib.import_module("deepmd.pt.model.model.make_model")
    rng = np.random.default_rng(0)
    coords = [torch.tensor(rng.normal(size=(2, 15))) for _ in range(2)]
    atype = torch.zeros((2, 5), dtype=torch.long)

    def build(number):
        arguments = (coords[number], atype, 4.0, [10])
        return make_model.extend_input_and_build_neighbor_list(*arguments, mixed_types=True)

    plain = [build(number) for number in range(2)]
    size = sum(part.nbytes for part in plain[0])
    lists = NeighbourLists(most_bytes=size * 3 // 2)
    with lists.kept():
        seen = {0: [], 1: []}
        for number in (0, 1, 0, 1):
            lists.choose(number)
            seen[number].append(build(number))
    assert seen[0][0] is seen[0][1]
    assert seen[1][0] is not seen[1][1]
    for number, results in seen.items():
        for found in results:
            for mine, expected in zip(found, plain[number], strict=True):
                torch.testing.assert_close(mine, expected)
