"""Farthest-point sampling against its definition."""

import numpy as np

from deepmd_mft.representations.farthest import farthest_points


def test_each_point_is_the_farthest_from_those_before():
    points = np.random.default_rng(0).normal(size=(60, 5))
    chosen = farthest_points(points, 20)
    assert len(set(chosen)) == 20
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert chosen[0] == np.argmax(np.linalg.norm(points - points.mean(0), axis=1))
    for step in range(1, 20):
        assert chosen[step] == np.argmax(apart[:, chosen[:step]].min(axis=1))


def test_equal_points_are_chosen_once_each():
    points = np.array([[0.0], [0.0], [1.0], [1.0]])
    assert sorted(farthest_points(points, 4)) == [0, 1, 2, 3]
    assert sorted(farthest_points(points, 9)) == [0, 1, 2, 3]
    assert sorted(points[farthest_points(points, 2), 0]) == [0.0, 1.0]
