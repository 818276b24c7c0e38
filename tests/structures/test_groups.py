"""Groups of frames that have one label: numbering, means, and a set seen by its groups."""

import numpy as np
import pytest

from deepmd_mft.errors import UserError
from deepmd_mft.structures.groups import check_numbers, differing, mean_over, number_groups
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.systems import write_system

GROUPS = np.array([4.0, np.nan, 0.0, 4.0, np.nan, 4.0])


def test_frames_without_a_number_are_groups_of_their_own():
    assert number_groups(GROUPS).tolist() == [0, 1, 2, 0, 3, 0]


def test_numbers_count_within_a_system():
    systems = np.array(["a", "a", "a", "b", "b", "b"], dtype=object)
    assert number_groups(GROUPS, systems).tolist() == [0, 1, 2, 3, 4, 3]


def test_every_frame_of_a_group_weighs_the_same():
    values = np.arange(12.0).reshape(6, 2) ** 2
    means = mean_over(values, number_groups(GROUPS))
    expected = [values[[0, 3, 5]].mean(axis=0), values[1], values[2], values[4]]
    np.testing.assert_allclose(means, expected, rtol=1e-14)


@pytest.mark.parametrize("bad", [-1.0, 0.5, np.inf])
def test_what_is_no_number_of_a_group_is_refused(bad):
    with pytest.raises(UserError, match=r"here has .*number of a group is 0, 1, 2"):
        check_numbers(np.array([[0.0], [bad]]), "here")


def test_a_label_that_one_frame_of_a_group_lacks_differs():
    groups = np.array([0, 1, 0])
    assert not differing(np.array([[1.0], [2.0], [1.0]]), groups)
    assert not differing(np.array([[np.nan], [2.0], [np.nan]]), groups)
    assert differing(np.array([[1.0], [2.0], [np.nan]]), groups) == (0, 2)
    assert differing(np.array([[1.0], [2.0], [1.1]]), groups) == (0, 2)


def grouped(path, gap=(1.0, 2.0, 3.0, 1.0, 4.0, 1.0)):
    write_system(path, nframes=6, gap=np.array(gap)[:, None], group=GROUPS[:, None])
    return StructureSet.open(path)


def test_a_set_seen_by_its_groups(tmp_path):
    pooling = Pooling(grouped(tmp_path / "set"))
    assert pooling.of_groups
    assert len(pooling.structures) == 4
    assert pooling.structures.labels("gap")[:, 0].tolist() == [1, 2, 3, 4]
    positions = [one.positions for one in pooling.frames]
    for row, one in zip([0, 1, 2, 4], pooling.structures, strict=True):
        np.testing.assert_array_equal(one.positions, positions[row])
    assert pooling.rows(np.array([0, 2])).tolist() == [0, 2, 3, 5]


def test_what_frames_belong_together_with_makes_their_groups_one_kind(tmp_path):
    pooling = Pooling(grouped(tmp_path / "set"))
    kinds = np.array([0, 1, 2, 3, 4, 1])  # the last frame of the first group is like frame 1
    assert pooling.joined(kinds).tolist() == [0, 0, 1, 2]


def test_labels_that_differ_within_a_group_are_refused(tmp_path):
    pooling = Pooling(grouped(tmp_path / "set", gap=(1.0, 2.0, 3.0, 1.5, 4.0, 1.0)))
    with pytest.raises(UserError, match=r"gap of set:0 and set:3 differs .* of one group"):
        pooling.structures.labels("gap")


def test_a_set_without_groups_stays_as_it_is(tmp_path):
    write_system(tmp_path / "set", nframes=3, gap=np.arange(3.0)[:, None])
    data = StructureSet.open(tmp_path / "set")
    pooling = Pooling(data)
    assert pooling.structures is data
    values = np.arange(6.0).reshape(3, 2)
    assert pooling.mean(values) is values
