"""Models between checkpoints: WiSE-FT's line from one to another, and soups of several.

WiSE-FT: Wortsman et al., arXiv 2109.01903. Soups: Wortsman et al., arXiv 2203.05482.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from deepmd_mft.checkpoints.averaging import greedy, mean
from deepmd_mft.checkpoints.branch import (
    SINGLE,
    branches_of,
    choose_branch,
    is_property,
    main_branches,
)
from deepmd_mft.checkpoints.edit.alike import first_difference
from deepmd_mft.checkpoints.file import branch_weights, read_state, write_state
from deepmd_mft.checkpoints.run import TrainingRun, folder_of_run
from deepmd_mft.checkpoints.selection import Validation, signed
from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.metrics import CLASSES, REGRESSION
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.inputs.branches import main_ones
from deepmd_mft.structures.places import find_test_set
from deepmd_mft.structures.pooling import Pooling
from deepmd_mft.structures.structure_set import StructureSet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deepmd_mft.checkpoints.model_file import ModelFile
    from deepmd_mft.inputs.branches import Branch

BEST = "model.best.pt"
#: Keys of a branch's JSON that mean nothing outside its multi-task model.
OF_BRANCH = ("finetune_head", "model_branch_alias")
#: Decimals of alpha: 0:1:0.1 gives 0.3, not 0.30000000000000004.
DECIMALS = 9


@dataclass(frozen=True)
class Mixture:
    """A weighted mean of the checkpoints.

    Attributes
    ----------
    name : str
        ``alpha-0.3``, ``uniform``, ``greedy``, or the file of the one checkpoint.
    weights : tuple of float
        One a checkpoint; their sum is 1.
    alpha : float or None
        Place on the line from the first of two to the second.
    errors : dict of str to float, optional
        On the validation data.
    """

    name: str
    weights: tuple[float, ...]
    alpha: float | None = None
    errors: dict[str, float] | None = None

    @classmethod
    def between(cls, alpha: float) -> Mixture:
        """Return the point ``(1 - alpha) A + alpha B``."""
        return cls(f"alpha-{alpha:g}", (1.0 - alpha, alpha), alpha)

    @classmethod
    def uniform(cls, members: Sequence[int], number: int, name: str) -> Mixture:
        """Return the plain mean of some of ``number`` checkpoints."""
        return cls(name, tuple(float(i in members) / len(members) for i in range(number)))

    @property
    def file(self) -> str:
        """The file it is written to, if it is not the best."""
        return f"model.{self.name}.pt"

    def scored(self, errors: dict[str, float]) -> Mixture:
        """Return the same with its errors."""
        return Mixture(self.name, self.weights, self.alpha, errors)

    def score(self, metric: str) -> float:
        """Return what is compared; smaller is better."""
        return signed(metric, (self.errors or {}).get(metric, np.nan))

    @property
    def record(self) -> dict[str, Any]:
        """What the artefacts say of it."""
        place = {} if self.alpha is None else {"alpha": self.alpha}
        return {"name": self.name, **place, "weights": list(self.weights), **(self.errors or {})}


def parse_alphas(texts: Sequence[str]) -> list[float]:
    """Return places between two checkpoints: numbers, and ``START:STOP:STEP``, both ends included.

    Raises
    ------
    UserError
        If they are no numbers from 0 to 1.
    """
    found: list[float] = []
    for text in texts:
        try:
            numbers = [float(one) for one in text.split(":")]
        except ValueError:
            numbers = []
        if len(numbers) == 3 and numbers[2] > 0:
            start, stop, step = numbers
            steps = round((stop - start) / step)
            if abs(start + steps * step - stop) > 1e-6 * step or steps < 1:
                raise UserError(f"--alpha {text}: steps of {step:g} do not lead to {stop:g}")
            numbers = list(np.round(np.linspace(start, stop, steps + 1), DECIMALS))
        elif len(numbers) != 1:
            raise UserError(f"--alpha {text}: write a number, or START:STOP:STEP as 0:1:0.1")
        found += map(float, numbers)
    bad = [alpha for alpha in found if not 0 <= alpha <= 1]
    if bad:
        raise UserError(
            f"--alpha {bad[0]:g}: it goes from 0, the first checkpoint, to 1, the other"
        )
    return sorted(set(found))


class Checkpoints:
    """Checkpoints of one network, each as a model of the chosen branch alone.

    Parameters
    ----------
    files : list of ModelFile
        The property branch is meant where none is named; of a single-task checkpoint it is all.

    Raises
    ------
    UserError
        If one cannot be read, has no such branch, or is another network than the first.
    """

    def __init__(self, files: list[ModelFile]) -> None:
        self.files = files
        self.branches: list[str] = []
        self.states: list[dict[str, Any]] = []
        for file in files:
            if file.path.suffix == ".pth":
                raise UserError(
                    f"{file.path} is frozen; take the checkpoint (.pt) that it was frozen from"
                )
            branch, state = _single_task(file)
            self.branches.append(branch)
            self.states.append(state)
            self._check_alike(file, state)

    def _check_alike(self, file: ModelFile, state: dict[str, Any]) -> None:
        first = self.states[0]
        params = tuple(one["_extra_state"]["model_params"] for one in (first, state))
        difference = first_difference(params, (first, state))
        if difference:
            raise UserError(
                f"{self.files[0].path} and {file.path} are different networks: {difference}. "
                "There is nothing between them; take checkpoints trained with one model section "
                "from one pretrained network"
            )

    def mix(self, mixture: Mixture) -> dict[str, Any]:
        """Return the weights of a mixture, as a single-task checkpoint holds them."""
        return mean(self.states, mixture.weights)

    @property
    def are_properties(self) -> bool:
        """Whether the branch learns a property."""
        return is_property(self.states[0]["_extra_state"]["model_params"])

    @property
    def record(self) -> list[dict[str, str]]:
        """Places and checksums."""
        return [
            {"path": str(file.path), "branch": branch, "sha256": file_checksum(file.path)}
            for file, branch in zip(self.files, self.branches, strict=True)
        ]

    def runs(self) -> list[tuple[TrainingRun, Branch] | None]:
        """Return the run that each lies in, and its branch there; None where there is none."""
        return [
            _run_of(file, branch) for file, branch in zip(self.files, self.branches, strict=True)
        ]


def _single_task(file: ModelFile) -> tuple[str, dict[str, Any]]:
    """Return the name of a checkpoint's branch, and the branch as a single-task checkpoint."""
    state = read_state(file.path)
    extra = state["_extra_state"]
    params = extra["model_params"]
    name = choose_branch(
        params,
        file.path,
        file.branch,
        main_branches,
        "no property branch, or several of which none is the main one",
    )
    own = {k: v for k, v in branches_of(params)[name].items() if k not in OF_BRANCH}
    weights = branch_weights(state, name, file.path)
    single = {f"model.{SINGLE}.{key}": value for key, value in weights.items()}
    return name, {**single, "_extra_state": {**extra, "model_params": own}}


def _run_of(file: ModelFile, branch: str) -> tuple[TrainingRun, Branch] | None:
    folder = folder_of_run(file.path)
    if not (folder / "out.json").is_file():
        return None
    run = TrainingRun(folder)
    named = {one.name: one for one in run.branches if one.is_property}
    main = main_ones(run.branches)
    one = named.get(branch) or (main[0] if len(main) == 1 else None)
    return (run, one) if one else None


def find_validation(checkpoints: Checkpoints, given: list[Path] | None) -> list[Path]:
    """Return the systems to choose by: those given, else those of the runs; empty if none has any.

    Raises
    ------
    UserError
        If they are test or training data, or the runs have different ones; or if some are given
        for a force field.
    """
    if not checkpoints.are_properties:
        if given:
            raise UserError(
                f"{checkpoints.files[0].path}: a force field is not chosen here; leave --valid out "
                "to write all models, and compare them with `dp --pt test`"
            )
        return []
    runs = [one for one in checkpoints.runs() if one is not None]
    if given:
        _refuse_other_data(given, runs)
        return given
    found: list[tuple[TrainingRun, list[Path]]] = []
    for run, branch in runs:
        if branch.data.get("validation_data"):
            found.append((run, run.validation_systems(branch)))
    if not found:
        return []
    contents = [
        sorted(one["sha256"] for one in StructureSet("validation", systems).checksum())
        for _, systems in found
    ]
    for (run, _), content in zip(found, contents, strict=True):
        if content != contents[0]:
            raise UserError(
                f"the runs {found[0][0].folder} and {run.folder} have different validation data; "
                "one's may be the other's training data: name some with --valid"
            )
    return found[-1][1]


def _refuse_other_data(given: list[Path], runs: list[tuple[TrainingRun, Branch]]) -> None:
    for folder in given:
        place = folder.resolve()
        if not place.is_dir():
            raise UserError(f"--valid {folder} is not a folder of deepmd-kit systems")
        test = find_test_set(place)
        if test:
            raise UserError(
                f"--valid {folder}: {test} is a test set by its name; a model must be chosen "
                "by validation data, or its test error means nothing"
            )
        for run, branch in runs:
            trained = [one.resolve() for one in run.systems(branch, "training_data")]
            if any(one == place or place in one.parents for one in trained):
                raise UserError(f"--valid {folder} is training data of the run {run.folder}")


def parts_of(given: list[Path]) -> dict[str, np.ndarray]:
    """Return the rows of each set of the validation data, if several were given."""
    if len(given) < 2:
        return {}
    names = [path.resolve().name for path in given]
    if len(set(names)) < len(names):
        names = [str(path) for path in given]
    whole = Pooling(StructureSet("validation", given))
    rows = [whole.frames.rows_at(path) for path in given]
    return {name: np.unique(whole.groups[own]) for name, own in zip(names, rows, strict=True)}


def score_line(
    checkpoints: Checkpoints,
    validation: Validation,
    alphas: list[float],
    parts: dict[str, np.ndarray],
    *,
    progress: bool,
) -> list[Mixture]:
    """Return the points on the line between two checkpoints with their errors."""
    points = [Mixture.between(alpha) for alpha in alphas]
    return [
        point.scored(validation.measure(checkpoints.mix(point), parts))
        for point in tqdm(points, unit=" models", disable=not progress, desc="validation")
    ]


def score_soups(
    checkpoints: Checkpoints,
    validation: Validation,
    metric: str,
    parts: dict[str, np.ndarray],
    *,
    progress: bool,
) -> list[Mixture]:
    """Return each checkpoint, their uniform and their greedy soup, with their errors."""
    number = len(checkpoints.files)

    def scored(mixture: Mixture) -> Mixture:
        return mixture.scored(validation.measure(checkpoints.mix(mixture), parts))

    each = [
        scored(Mixture.uniform([i], number, str(checkpoints.files[i].path)))
        for i in tqdm(range(number), unit=" models", disable=not progress, desc="validation")
    ]
    uniform = scored(Mixture.uniform(range(number), number, "uniform"))
    tried: dict[tuple[int, ...], Mixture] = {}

    def score(members: list[int]) -> float:
        mixture = scored(Mixture.uniform(members, number, "greedy"))
        tried[tuple(members)] = mixture
        return mixture.score(metric)

    ranked = sorted(range(number), key=lambda i: each[i].score(metric))
    members, _ = greedy(ranked, score, each[ranked[0]].score(metric))
    found = tried.get(tuple(members))  # none if the best alone is better than with any other
    return [*each, uniform, *([found] if found else [])]


def open_validation(
    checkpoints: Checkpoints, systems: list[Path], folder: Path, name: str | None
) -> Validation:
    """Return what scores mixtures; ``folder`` holds a model while it is loaded."""
    path = folder / BEST
    write_state(path, checkpoints.states[-1], {})
    return Validation(systems, str(checkpoints.files[-1].path), Predictor.load(path), name)


def best_of(mixtures: list[Mixture], metric: str) -> Mixture:
    """Return the one of the smallest validation error.

    Raises
    ------
    UserError
        If none has one.
    """
    best = min(mixtures, key=lambda one: one.score(metric))
    if not np.isfinite(best.score(metric)):
        raise UserError(
            f"{metric} of every model is NaN: a training has diverged, or the validation labels "
            "are constant"
        )
    return best


def table(mixtures: list[Mixture], metric: str, best: Mixture | None) -> str:
    """Return errors as text, one line a model."""
    known = [*REGRESSION, *CLASSES]
    names = sorted(
        (name for name in mixtures[0].errors or {} if name in known or _is_part(name, metric)),
        key=lambda name: not _is_part(name, metric),
    )
    columns = {name: max(len(name), 10) + 2 for name in names}
    width = max(len(one.name) for one in mixtures) + 2
    lines = [f"{'model':<{width}}" + "".join(f"{n:>{w}}" for n, w in columns.items())]
    for one in mixtures:
        errors = one.errors or {}
        numbers = "".join(f"{errors[n]:>{w}.5g}" for n, w in columns.items())
        lines.append(f"{one.name:<{width}}{numbers}{'  <- best' if one is best else ''}")
    return "\n".join(lines)


def _is_part(name: str, metric: str) -> bool:
    """Whether an error is the metric, of all, of one property or of one set."""
    return name == metric or name.startswith(f"{metric}_")
