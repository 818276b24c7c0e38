"""Gaussian kernel density of scalar targets, as the BOOM splits use it.

BOOM (Antoniuk et al., NeurIPS Datasets and Benchmarks 2025; used for QM9 by the
MFT paper, arXiv 2601.08486, C.1) calls the molecules with the lowest kernel
density of the target value out-of-distribution. Its released script takes
scikit-learn's ``KernelDensity(kernel="gaussian", bandwidth="scott")`` on the
values themselves. scikit-learn's tree needs minutes for the 130,831 molecules
of QM9; here the same sum is written so that it takes seconds.
"""

import math

import numpy as np

__all__ = ["lowest_density", "scott_bandwidth", "scott_log_density"]

# Half width of an expansion box, in bandwidths, and the number of terms kept.
# The remainder of the Hermite series is below _BOX**_TERMS / sqrt(_TERMS!),
# times exp(-t**2 / 4): 2e-17 for these two.
_BOX = 0.125
_TERMS = 13


def scott_bandwidth(n: int) -> float:
    """Bandwidth that scikit-learn calls "scott", for one-dimensional data.

    Parameters
    ----------
    n : int
        Number of values.

    Returns
    -------
    float
        ``n ** (-1 / 5)``, in the unit of the values. It is *not* scaled by the
        spread of the data (``scipy.stats.gaussian_kde`` does that), so it
        depends on the unit the values are given in.
    """
    if n < 1:
        raise ValueError(f"a density needs at least one value, got {n}")
    return float(np.power(float(n), -1.0 / 5.0))


def scott_log_density(values: np.ndarray) -> np.ndarray:
    r"""Log of the Gaussian kernel density of every value, Scott's bandwidth.

    .. math::
        \log \rho(x_i) = \log \sum_j \exp\left(-\frac{(x_i - x_j)^2}{2 h^2}\right)
        - \log\left(n h \sqrt{2 \pi}\right), \quad h = n^{-1/5}

    Equal to ``KernelDensity(kernel="gaussian", bandwidth="scott")`` of
    scikit-learn, fitted to and scored on the same values, up to rounding:

    - equal values are summed once, with their count, and so get exactly equal
      densities;
    - the sum over *j* is cut where all the kernels left out together are below
      the rounding of the point's own kernel, which is 1;
    - crowded stretches (more than 13 distinct values in a quarter of a
      bandwidth) are summed through their Hermite expansion about the middle of
      the stretch, 13 terms, remainder below 2e-17 of a kernel (the fast Gauss
      transform, Greengard and Strain, SIAM J. Sci. Stat. Comput. 12, 79 (1991)).

    Parameters
    ----------
    values : np.ndarray
        Target values, shape n, in the unit in which the density is wanted.

    Returns
    -------
    np.ndarray
        Log densities, shape n, in the order of ``values``.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"values must be one-dimensional and not empty, got shape {array.shape}")
    finite = np.isfinite(array)
    if not finite.all():
        raise ValueError(
            f"{int((~finite).sum())} of {array.size} values are NaN or infinite, the "
            f"first at index {int(np.argmin(finite))}"
        )
    n = array.size
    bandwidth = scott_bandwidth(n)
    unique, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    scaled = (unique - unique[0]) / bandwidth
    weights = counts.astype(np.float64)
    # All n kernels beyond this distance add up to less than eps / 4.
    reach = math.sqrt(2.0 * math.log(4.0 * n / float(np.finfo(np.float64).eps)))

    box = np.floor(scaled / (2.0 * _BOX))
    starts = np.flatnonzero(np.concatenate(([True], box[1:] != box[:-1])))
    ends = np.append(starts[1:], scaled.size)
    first = np.searchsorted(scaled, scaled[starts] - reach, side="left")
    last = np.searchsorted(scaled, scaled[ends - 1] + reach, side="right")
    centres = 0.5 * (unique[starts] + unique[ends - 1])

    total = np.zeros_like(scaled)
    for start, end, centre, low, high in zip(starts, ends, centres, first, last, strict=True):
        # Subtracted before scaling: far from zero the other order loses digits.
        offset = (unique[start:end] - centre) / bandwidth
        weight = weights[start:end]
        target = (unique[low:high] - centre) / bandwidth
        if end - start <= _TERMS:
            for o, w in zip(offset, weight, strict=True):
                total[low:high] += w * np.exp(-0.5 * (target - o) ** 2)
            continue
        # exp(-(t - s)**2 / 2) = exp(-t**2 / 2) sum_k s**k / k! He_k(t)
        moments = np.empty(_TERMS)
        power = weight.copy()
        for k in range(_TERMS):
            moments[k] = power.sum()
            power = power * offset / (k + 1)
        series = np.full_like(target, moments[0])
        before, now = np.ones_like(target), target
        for k in range(1, _TERMS):
            series += moments[k] * now
            before, now = now, target * now - k * before
        total[low:high] += series * np.exp(-0.5 * target**2)

    norm = math.log(n * bandwidth * math.sqrt(2.0 * math.pi))
    return np.asarray((np.log(total) - norm)[inverse.reshape(-1)])


def lowest_density(values: np.ndarray, n: int) -> np.ndarray:
    """Return the indices of the values with the lowest kernel density.

    Parameters
    ----------
    values : np.ndarray
        Target values, shape ``nvalues``.
    n : int
        How many to take, between 0 and ``nvalues``.

    Returns
    -------
    np.ndarray
        ``n`` indices into ``values``, lowest density first. Ties (equal values
        have equal densities) go to the lower index, so the answer depends on
        the order of ``values`` and on nothing else.
    """
    log_density = scott_log_density(values)
    if not 0 <= n <= log_density.size:
        raise ValueError(
            f"cannot take {n} of {log_density.size} values; n must lie between 0 and "
            f"{log_density.size}"
        )
    return np.argsort(log_density, kind="stable")[:n]
