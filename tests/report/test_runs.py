"""What a report knows of a run."""

from types import SimpleNamespace

import pytest

from deepmd_mft.report.runs import share_of_steps


@pytest.mark.parametrize(
    ("prob", "names", "share"),
    [
        ({"p": 1.0, "ff": 3.0}, ("p", "ff"), 0.25),
        ({"p": 0.5, "ff": 0.5, "old": 1.0}, ("p", "ff"), 0.5),  # deepmd-kit takes no other
        (None, ("p", "ff"), float("nan")),  # deepmd-kit goes by the numbers of systems
        (None, ("p",), 1.0),
    ],
)
def test_share_of_the_steps(prob, names, share):
    """Left out, it was taken for 1: all steps were the property branch's."""
    branches = [SimpleNamespace(name=name) for name in names]
    run = SimpleNamespace(config={"training": {"model_prob": prob}}, branches=branches)
    assert share_of_steps(run, branches[0]) == pytest.approx(share, nan_ok=True)
