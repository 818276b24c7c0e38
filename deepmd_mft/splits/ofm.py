"""Orbital-field matrices of crystals (Lam Pham et al., Sci. Technol. Adv. Mater. 18, 756 (2017)).

An atom is a vector of 32 zeros and ones, one for each filling of its valence subshells
(s1, s2, p1 ... p6, d1 ... d10, f1 ... f14). The matrix of a site *p* is the sum over its
Voronoi neighbours *k* of the outer product of the two vectors,

    X_p = sum_k  o_k  o_p^T  (theta_k / theta_max) / r_pk

with the solid angle theta of the common face and the distance r in bohr; the matrix of a
structure is the mean over its sites. matminer computes the same numbers (they agree to
1e-8 here) through pymatgen at about 0.1 to 0.5 s per structure; one Voronoi diagram for all
sites of a structure takes about 5 ms.

matminer with pymatgen of 2025 and later fills the table of subshells differently for the
transition metals and lanthanides (Sc: s2 p6 d1), because pymatgen reordered its electron
configurations. The table here is the paper's rule on the configurations as they are
written (Sc: s2 d1); with it the published folds of Omee et al. come out.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import zlib
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from scipy.spatial import QhullError, Voronoi
from tqdm import tqdm

from deepmd_mft.data.units import BOHR
from deepmd_mft.errors import UserError
from deepmd_mft.files.staging import atomic_file
from deepmd_mft.structures.elements import ELEMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from deepmd_mft.structures.structure import Structure

__all__ = ["SIZE", "neighbours", "orbital_field_matrices", "orbital_field_matrix"]

#: Number of subshell fillings.
SIZE = 32

# Valence subshells of H to Lr: those of the highest shell, d of the one below, f of the
# two below.
_VALENCE_TABLE = """
s1 s2 s1 s2 s2p1 s2p2 s2p3 s2p4 s2p5 s2p6 s1 s2 s2p1 s2p2 s2p3 s2p4 s2p5 s2p6 s1 s2
s2d1 s2d2 s2d3 s1d5 s2d5 s2d6 s2d7 s2d8 s1d10 s2d10
s2p1d10 s2p2d10 s2p3d10 s2p4d10 s2p5d10 s2p6d10 s1 s2
s2d1 s2d2 s1d4 s1d5 s2d5 s1d7 s1d8 s2p6d10 s1d10 s2d10
s2p1d10 s2p2d10 s2p3d10 s2p4d10 s2p5d10 s2p6d10 s1 s2
s2d1 s2d1f1 s2f3 s2f4 s2f5 s2f6 s2f7 s2d1f7 s2f9 s2f10 s2f11 s2f12 s2f13 s2f14 s2d1f14
s2d2f14 s2d3f14 s2d4f14 s2d5f14 s2d6f14 s2d7f14 s1d9f14 s1d10f14 s2d10f14
s2p1d10f14 s2p2d10f14 s2p3d10f14 s2p4d10f14 s2p5d10f14 s2p6d10f14 s1 s2
s2d1 s2d2 s2d1f2 s2d1f3 s2d1f4 s2f6 s2f7 s2d1f7 s2f9 s2f10 s2f11 s2f12 s2f13 s2f14 s2p1f14
"""
_VALENCE = _VALENCE_TABLE.split()
_OFFSET = {"s": -1, "p": 1, "d": 7, "f": 17}

# Structures computed, and cached, in one piece.
_PIECE = 250


def _one_hot() -> np.ndarray:
    vectors = np.zeros((len(ELEMENTS) + 1, SIZE))
    for z, shells in enumerate(_VALENCE, start=1):
        for shell, electrons in re.findall(r"([spdf])(\d+)", shells):
            vectors[z, _OFFSET[shell] + int(electrons)] = 1.0
    return vectors


_VECTORS = _one_hot()


def neighbours(
    coords: np.ndarray, cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Voronoi neighbours of all atoms in a crystal.

    Parameters
    ----------
    coords : np.ndarray
        Positions in Angstrom, shape ``nloc x 3``.
    cell : np.ndarray
        Cell vectors in rows, shape ``3 x 3``.

    Returns
    -------
    centre, neighbour : np.ndarray
        Atom indices of each pair, shape ``npairs``.
    weight : np.ndarray
        Solid angle of the common face over the largest of the centre.
    distance : np.ndarray
        In Angstrom.
    """
    nloc = len(coords)
    inverse = np.linalg.inv(cell)
    fractions = coords @ inverse
    coords = (fractions - np.floor(fractions)) @ cell
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    radius = 2.6 * (abs(np.linalg.det(cell)) / nloc) ** (1.0 / 3.0)
    for _ in range(40):
        points, atoms = _images(coords, cell, heights, radius)
        try:
            faces = _faces(points, nloc)
        except QhullError:
            faces = None
        if faces is None:
            radius *= 1.4
            continue
        centre, other, angle, reach = faces
        # Faces are final once no point outside the radius could cut a vertex off.
        if 2.0 * reach <= radius * (1.0 + 1e-9):
            distance = np.linalg.norm(points[centre] - points[other], axis=1)
            largest = np.zeros(nloc)
            np.maximum.at(largest, centre, angle)
            return centre, atoms[other], angle / largest[centre], distance
        # Beside a vacuum the first vertices lie much too far out: approach in steps.
        radius = min(2.002 * reach, 1.5 * radius)
    raise UserError("no Voronoi diagram: is the cell flat or are atoms on top of each other?")


def _images(
    coords: np.ndarray, cell: np.ndarray, heights: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Atoms of the cell, then all images within ``radius`` of one of them."""
    repeats = np.ceil(radius / heights).astype(int)
    shifts = np.stack(
        np.meshgrid(*(np.arange(-r, r + 1) for r in repeats), indexing="ij"), axis=-1
    ).reshape(-1, 3)
    shifts = shifts[shifts.any(axis=1)] @ cell
    images = (shifts[:, None] + coords[None]).reshape(-1, 3)
    atoms = np.tile(np.arange(len(coords)), len(shifts))
    near = np.zeros(len(images), dtype=bool)
    for centre in coords:
        near |= np.einsum("px,px->p", images - centre, images - centre) <= radius**2
    points = np.concatenate([coords, images[near]])
    return points, np.concatenate([np.arange(len(coords)), atoms[near]])


def _faces(
    points: np.ndarray, nloc: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float] | None:
    """Faces of the first ``nloc`` points' cells; None while a cell is open.

    Returns
    -------
    centre, neighbour, angle : np.ndarray
        Points on both sides and solid angle of each face.
    reach : float
        Distance of the farthest vertex from its centre.
    """
    if len(points) < 5:
        return None
    diagram = Voronoi(points)
    chosen = np.flatnonzero((diagram.ridge_points < nloc).any(axis=1))
    ridges = [diagram.ridge_vertices[i] for i in chosen]
    if any(-1 in ridge for ridge in ridges):
        return None
    pairs = diagram.ridge_points[chosen]
    sizes = np.array([len(ridge) for ridge in ridges])
    flat = diagram.vertices[np.concatenate(ridges)]
    # Each face as a fan of triangles around its first vertex.
    first = np.repeat(np.cumsum(sizes) - sizes, sizes - 2)
    owner = np.repeat(np.arange(len(sizes)), sizes - 2)
    step = np.concatenate([np.arange(1, size - 1) for size in sizes])
    corners = flat[first], flat[first + step], flat[first + step + 1]
    centres, others, angles, reach = [], [], [], 0.0
    for side in (0, 1):
        inside = pairs[:, side] < nloc
        angle, farthest = _solid_angles(corners, points[pairs[:, side]][owner])
        total = np.bincount(owner, angle, minlength=len(sizes))
        centres.append(pairs[inside, side])
        others.append(pairs[inside, 1 - side])
        angles.append(total[inside])
        reach = max(reach, float(farthest[inside[owner]].max(initial=0.0)))
    return np.concatenate(centres), np.concatenate(others), np.concatenate(angles), reach


def _solid_angles(
    corners: tuple[np.ndarray, np.ndarray, np.ndarray], origin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solid angles of triangles (van Oosterom and Strackee 1983) and their farthest corners."""
    a, b, c = (corner - origin for corner in corners)
    la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
    triple = np.abs(np.einsum("tx,tx->t", a, np.cross(b, c)))
    ab, ac, bc = (np.einsum("tx,tx->t", u, v) for u, v in ((a, b), (a, c), (b, c)))
    angle = 2.0 * np.arctan2(triple, la * lb * lc + ab * lc + ac * lb + bc * la)
    return angle, np.maximum(np.maximum(la, lb), lc)


def orbital_field_matrix(numbers: np.ndarray, coords: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Mean orbital-field matrix of a crystal, flattened.

    Parameters
    ----------
    numbers : np.ndarray
        Atomic numbers, shape ``nloc``, up to 103.
    coords : np.ndarray
        Positions in Angstrom, shape ``nloc x 3``.
    cell : np.ndarray
        Cell vectors in rows, shape ``3 x 3``.

    Returns
    -------
    np.ndarray
        Shape ``1024``, row of the neighbour, column of the centre, in 1/bohr.
    """
    centre, neighbour, weight, distance = neighbours(coords, cell)
    vectors = _VECTORS[numbers]
    pair = np.zeros((len(numbers), len(numbers)))
    np.add.at(pair, (neighbour, centre), weight * BOHR / distance)
    return np.asarray(vectors.T @ pair @ vectors / len(numbers)).reshape(-1)


def _piece(structures: list[Structure], names: list[str]) -> np.ndarray:
    rows = []
    for (numbers, coords, cell), name in zip(structures, names, strict=True):
        if cell is None:
            raise UserError(
                f"orbital-field matrices need crystals; {name} is a molecule (it has no cell)"
            )
        try:
            rows.append(orbital_field_matrix(numbers, coords, cell))
        except (UserError, QhullError, np.linalg.LinAlgError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"orbital-field matrix of {name}: {reason}") from None
    return np.array(rows, dtype=np.float64)


def _cached(
    structures: list[Structure], names: list[str], cache: Path | None
) -> tuple[np.ndarray, bool]:
    """Return the matrices of a piece, and whether the cache took (or gave) them."""
    if cache is None:
        return _piece(structures, names), False
    digest = hashlib.sha256(b"ofm 1")
    for arrays in structures:
        for array in arrays:
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    path = cache / f"ofm-{digest.hexdigest()[:32]}.npz"
    found = _read_piece(path, len(structures))
    if found is not None:
        return found, True
    matrices = _piece(structures, names)
    try:
        with atomic_file(path) as partial:
            np.savez_compressed(partial, ofm=matrices)
    except (OSError, UserError):  # full, or taken away meanwhile: the cache only saves time
        return matrices, False
    return matrices, True


def _read_piece(path: Path, n: int) -> np.ndarray | None:
    """Return a finished piece; None if there is none, or a broken one."""
    try:
        with np.load(path) as archive:
            found = np.asarray(archive["ofm"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None
    return found if found.shape == (n, SIZE * SIZE) else None


def orbital_field_matrices(
    structures: Iterable[Structure],
    *,
    names: Sequence[str] | None = None,
    jobs: int = 2,
    cache: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
    progress: bool = False,
) -> np.ndarray:
    """Orbital-field matrices of many crystals, in parallel, kept for the next time.

    Parameters
    ----------
    structures : iterable
        Atomic numbers, positions and cell of each.
    names : sequence of str, optional
        What messages call each; their numbers by default. Its length is the progress bar's.
    jobs : int
        Processes.
    cache : Path, optional
        Folder of finished pieces (250 structures each), made if need be. An interrupted run
        goes on after the last of them. Without a folder that can be written the features are
        computed all the same, and the next run computes them again.
    tell : callable
        Takes a line on what is done, and one if the cache cannot be used.
    progress : bool
        Show a progress bar.

    Returns
    -------
    np.ndarray
        Shape ``nstructures x 1024``.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: at least one process is needed")
    kept = _usable(cache, tell)
    total = f"{len(names):,} structures" if names is not None else "the structures"
    where = f", kept in {kept}" if kept else ""
    tell(f"orbital-field matrices of {total}, {jobs} processes{where}")
    done: list[np.ndarray] = []
    lost = False
    bar = tqdm(
        total=None if names is None else len(names), unit=" structures", disable=not progress
    )
    with bar, ProcessPoolExecutor(max_workers=jobs) as pool:
        # No more pieces wait than the processes need: the set need not fit into memory twice.
        pending: deque[Future[tuple[np.ndarray, bool]]] = deque()
        for piece, labels in _pieces(structures, names):
            pending.append(pool.submit(_cached, piece, labels, kept))
            if len(pending) > 2 * jobs:
                lost |= _collect(pending.popleft(), done, bar)
        while pending:
            lost |= _collect(pending.popleft(), done, bar)
    if kept and lost:
        tell(f"some features could not be kept in {kept}; the next run computes them again")
    return np.concatenate(done)


def _collect(future: Future[tuple[np.ndarray, bool]], done: list[np.ndarray], bar: tqdm) -> bool:
    """Take a finished piece; return whether the cache did not take it."""
    matrices, kept = future.result()
    done.append(matrices)
    bar.update(len(matrices))
    return not kept


def _usable(cache: Path | None, tell: Callable[[str], None]) -> Path | None:
    """Return the cache if it can be made and written, else say so."""
    if cache is None:
        return None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        tell(
            f"features are not kept for the next run: {cache} cannot be written "
            f"({error.strerror}); name another folder with --cache"
        )
        return None
    return cache


def _pieces(
    structures: Iterable[Structure], names: Sequence[str] | None
) -> Iterator[tuple[list[Structure], list[str]]]:
    piece: list[Structure] = []
    labels: list[str] = []
    for row, structure in enumerate(structures):
        piece.append(structure)
        labels.append(f"structure {row}" if names is None else f"{names[row]} (row {row})")
        if len(piece) == _PIECE:
            yield piece, labels
            piece, labels = [], []
    if piece:
        yield piece, labels
