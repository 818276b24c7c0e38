"""Davies-Bouldin against scikit-learn and the paper's formula, t-SNE, collapse."""

import numpy as np
import pytest
from sklearn.metrics import davies_bouldin_score

from deepmd_mft.errors import UserError
from deepmd_mft.representations.clusters import cluster_scores, davies_bouldin, flatten


def clouds(seed=0, dim=5, nclasses=4, size=40, apart=3.0):
    rng = np.random.default_rng(seed)
    centres = apart * rng.normal(size=(nclasses, dim))
    points = np.concatenate(
        [c + rng.normal(size=(size + 7 * i, dim)) for i, c in enumerate(centres)]
    )
    labels = np.repeat(list("abcdefgh")[:nclasses], [size + 7 * i for i in range(nclasses)])
    return points, labels


def formula(points, labels, p=2, q=1):
    """Equations 13 and 14 of the MFT paper, written down as they stand there."""
    names = sorted(set(labels))
    centroid = {n: points[labels == n].mean(axis=0) for n in names}
    s = {
        n: np.mean([np.linalg.norm(x - centroid[n]) ** q for x in points[labels == n]]) ** (1 / q)
        for n in names
    }
    worst = [
        max(
            (s[i] + s[j]) / np.sum(np.abs(centroid[i] - centroid[j]) ** p) ** (1 / p)
            for j in names
            if j != i
        )
        for i in names
    ]
    return np.mean(worst)


@pytest.mark.parametrize("seed", range(5))
def test_davies_bouldin_is_scikit_learns_and_the_papers(seed):
    points, labels = clouds(seed)
    assert davies_bouldin(points, labels) == pytest.approx(davies_bouldin_score(points, labels))
    assert davies_bouldin(points, labels) == pytest.approx(formula(points, labels), rel=1e-12)


def test_the_index_does_not_depend_on_order_rotation_shift_and_scale():
    points, labels = clouds()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    order = np.random.default_rng(2).permutation(len(points))
    moved = 7.0 * (points @ rotation)[order] + 3.0
    assert davies_bouldin(moved, labels[order]) == pytest.approx(davies_bouldin(points, labels))


def test_full_collapse_is_the_worst_value_not_the_best():
    points, labels = clouds()
    same = np.ones_like(points)
    assert davies_bouldin_score(same, labels) == 0.0  # what scikit-learn says
    assert davies_bouldin(same, labels) == np.inf
    two = np.concatenate([same[labels != "a"], same[labels == "a"] + 1.0])
    names = np.concatenate([labels[labels != "a"], labels[labels == "a"]])
    assert davies_bouldin(two, names) == np.inf  # scikit-learn passes over the pair
    scores = cluster_scores(same, labels, bootstrap=3)
    assert scores.davies_bouldin == np.inf


def test_the_interval_holds_the_value_and_narrows_with_more_points():
    widths = []
    for size in (30, 600):
        points, labels = clouds(size=size)
        scores = cluster_scores(points, labels, bootstrap=50, seed=1)
        assert scores.low < scores.davies_bouldin * 1.05
        assert scores.high > scores.davies_bouldin * 0.95
        assert -1 <= scores.silhouette <= 1
        widths.append(scores.high - scores.low)
    assert widths[1] < 0.5 * widths[0]
    assert scores == cluster_scores(points, labels, bootstrap=50, seed=1)


def test_tsne_repeats_with_its_seed_and_tells_classes_apart():
    points, labels = clouds(apart=6.0)
    first, again = (flatten(points, seed=3) for _ in range(2))
    assert first.shape == (len(points), 2)
    np.testing.assert_array_equal(first, again)
    assert davies_bouldin(first, labels) < 0.7


def test_tsne_of_identical_points():
    assert not flatten(np.ones((50, 4))).any()
    half = np.concatenate([np.zeros((40, 4)), np.ones((40, 4))])
    assert np.isfinite(flatten(half)).all()


def test_tsne_says_what_it_cannot_do():
    with pytest.raises(UserError, match="more structures"):
        flatten(np.ones((10, 4)))
    with pytest.raises(UserError, match="diverged"):
        flatten(np.full((50, 4), np.nan))
