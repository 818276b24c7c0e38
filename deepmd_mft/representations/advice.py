"""Which auxiliary set suits a target: ranking by distance in representation space.

MFT (arXiv 2601.08486, section 2.8): with QM9 targets the auxiliary sets OMat24, OC20M and ODAC23
raise the OOD error by 20.3, 17.8 and 22.4 % over SPICE2, the set of molecules. A set far from the
target is a risk; a near one is no promise. The distances rank; they predict no error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepmd_mft.representations.drift import wasserstein

__all__ = ["Candidate", "advise", "rank"]

#: Farther than this many times the distance between two halves of the target: another domain.
#: A rule of thumb between molecules and crystals (docs/howto/analysis.md), not a fitted value.
FAR = 5.0


@dataclass(frozen=True)
class Candidate:
    """An auxiliary set seen from the target.

    Parameters
    ----------
    name : str
        Its name.
    distance : float
        1-Wasserstein distance of its atoms' representations from the target's.
    ratio : float
        That distance over the distance between two random halves of the target's atoms, the
        smallest that samples of this size can show.
    structure_distance : float
        The same of structure-level means.
    missing_elements : list of str
        Elements of the target that it lacks.
    usable : float
        Share of its structures whose elements the checkpoint knows.
    """

    name: str
    distance: float
    ratio: float
    structure_distance: float
    missing_elements: list[str]
    usable: float


def floor(features: np.ndarray, *, seed: int = 0) -> float:
    """Return the distance between two random halves of a set's representations."""
    rows = np.random.default_rng(seed).permutation(len(features))
    half = len(rows) // 2
    return wasserstein(features[rows[:half]], features[rows[half : 2 * half]])


def rank(candidates: list[Candidate]) -> list[Candidate]:
    """Order auxiliary sets: those with all elements of the target first, then the nearest."""
    return sorted(candidates, key=lambda c: (len(c.missing_elements), c.distance))


def advise(target: str, ranked: list[Candidate]) -> list[str]:
    """Say in words what the ranking means, one sentence a candidate.

    Parameters
    ----------
    target : str
        Name of the target's set.
    ranked : list of Candidate
        From :func:`rank`.

    Returns
    -------
    list of str
    """
    words = []
    for place, candidate in enumerate(ranked, start=1):
        reasons = []
        if candidate.missing_elements:
            missing = ", ".join(candidate.missing_elements)
            reasons.append(f"what was looked at of it has no {missing}")
        if candidate.ratio > FAR:
            reasons.append(
                f"its atoms are {candidate.ratio:.1f} times as far from {target} as two halves of "
                f"{target} are from each other"
            )
        if candidate.usable < 1:
            reasons.append(
                f"{100 * (1 - candidate.usable):.0f} % of its structures have elements that the "
                "checkpoint does not know, and were left out"
            )
        risk = (
            "negative transfer is a risk: " + "; ".join(reasons)
            if reasons
            else "nothing speaks against it here"
        )
        words.append(f"{place}. {candidate.name}: {risk}.")
    return words
