"""Fill, check and write the runs of a plan."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.folds import find_folds, parts_of
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.lock import workspace
from deepmd_mft.files.staging import atomic_file
from deepmd_mft.files.versions import package_versions
from deepmd_mft.inputs.branches import flat, main_ones, read_branches
from deepmd_mft.inputs.filling import fill
from deepmd_mft.inputs.paths import relative_to, with_paths
from deepmd_mft.inputs.pretrained import Pretrained
from deepmd_mft.plans.scripts import makefile, report_script, run_script
from deepmd_mft.plans.strategies import Strategy, unlike, with_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deepmd_mft.inputs.filling import Filling

RECORD = "plan.json"


@dataclass(frozen=True)
class PlannedRun:
    """A run: its folder's name, and what it is."""

    name: str
    fold: str
    strategy: Strategy
    seed: int


@dataclass
class Plan:
    """Every fold with every strategy and seed.

    Attributes
    ----------
    split : list of Path
        As given: folds, folders of folds, or a split.
    folds : dict of Path
        By name; a split that is no fold has an empty one.
    strategies : list of Strategy
    seeds : list of int
    filling : Filling
        What goes into every template; its checkpoint only into those that start from it.
    notes : list of str
        What the user has to be told, filled in.
    """

    split: list[Path]
    folds: dict[str, Path]
    strategies: list[Strategy]
    seeds: list[int]
    filling: Filling
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, split: list[Path], strategies: list[Strategy], seeds: list[int], filling: Filling
    ) -> Plan:
        """Find the folds.

        Raises
        ------
        UserError
            If there is none, or one has no training, validation or test data.
        """
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise UserError(
                f"--seeds {' '.join(map(str, seeds))}: give different numbers, none below zero"
            )
        folds = find_folds(split)
        if not folds and len(split) > 1:
            raise UserError(
                f"{', '.join(map(str, split))}: no folds with sets of equal names; give folds of "
                "dp-mft split, or one split"
            )
        folds = folds or {"": split[0]}
        for fold in folds.values():
            _check_parts(fold)
        return cls(split, folds, strategies, seeds, filling)

    @property
    def runs(self) -> list[PlannedRun]:
        """All runs, fold by fold.

        Raises
        ------
        UserError
            If two would have one folder.
        """
        found: dict[str, PlannedRun] = {}
        for fold in self.folds:
            for strategy in self.strategies:
                for seed in self.seeds:
                    run = PlannedRun(_name(fold, strategy.name, seed), fold, strategy, seed)
                    if run.name in found:
                        raise UserError(
                            f"the runs of folds '{found[run.name].fold}' and '{fold}' would both "
                            f"be called {run.name}; rename one of the folds"
                        )
                    found[run.name] = run
        return list(found.values())


def _name(fold: str, strategy: str, seed: int) -> str:
    """Return the folder of a run: make and shells take it as it is."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "_", fold).lstrip(".")
    return "-".join([*([plain] if plain else []), strategy, f"s{seed}"])


def _check_parts(fold: Path) -> None:
    """Raise unless there is something to train, to select by and to test on."""
    if not fold.is_dir():
        raise UserError(f"{fold} is not a folder; give the folder that dp-mft split wrote")
    parts = parts_of(fold)
    for role, purpose in (
        ("train", "to train on"),
        ("val", "to choose checkpoints by (dp-mft split --val)"),
        ("test", "to evaluate on"),
    ):
        found = parts[role]
        if not found:
            listed = ", ".join(path.name for one in parts.values() for path in one)
            raise UserError(
                f"{fold} has no data {purpose}: no system in a folder {role}* "
                f"(there: {listed or 'no set of a split'}); give the folder that dp-mft split wrote"
            )
        if role != "test" and len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UserError(f"{fold} has several sets {purpose}: {names}; rename all but one")


def write_plan(plan: Plan, out: Path, progress: Callable[[str], None]) -> list[str]:
    """Fill and check all inputs, then write what is not there yet.

    Parameters
    ----------
    plan : Plan
    out : Path
        A folder; runs that are there with the same input stay as they are.
    progress : callable
        Told what is being checked.

    Returns
    -------
    list of str
        The runs that are new.

    Raises
    ------
    UserError
        If an input is wrong, or a run is there with another one. Nothing is written then.
    """
    out = out.resolve()  # relative paths climb through real folders
    with workspace(out) as staging:
        earlier = _earlier(out, plan)
        configs = _fill(plan, out)
        _check_property(configs)
        new = [name for name in configs if not _is_there(out / name, configs[name])]
        for run in plan.runs:
            (staging / run.name).mkdir()
            _write_run(plan, run, configs[run.name], staging / run.name, out)
        _check(plan, new, staging, progress)
        out.mkdir(exist_ok=True)
        _replace(out / RECORD, json.dumps(_record(plan, out), indent=1) + "\n")
        for name in configs:
            if name in new:
                (staging / name).rename(out / name)
            else:
                _replace(out / name / "run.sh", (staging / name / "run.sh").read_text())
        _replace(out / "report.sh", report_script(out, list(configs)))
        _replace(out / "Makefile", makefile(list(configs)))
    left = [name for name in earlier if name not in configs and (out / name).is_dir()]
    if left:
        plan.notes.append(
            f"runs of an earlier plan in {out} are no part of this one: {', '.join(left)}"
        )
    return new


def _earlier(out: Path, plan: Plan) -> list[str]:
    """Return the runs of the plan in a folder; none if there is no folder.

    Raises
    ------
    UserError
        If something else is there, or a plan of another split.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return []
    try:
        record = json.loads((out / RECORD).read_text())
        runs, split = list(record["runs"]), [(out / one).resolve() for one in record["split"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{out} was not written by dp-mft plan (no {RECORD} of it there); choose another name"
        ) from None
    mine = [one.resolve() for one in plan.split]
    if not any(a == b or a in b.parents or b in a.parents for a in mine for b in split):
        raise UserError(
            f"{out} is a plan of {', '.join(map(str, split))}, not of "
            f"{', '.join(map(str, plan.split))}; choose another name"
        )
    return runs


def _fill(plan: Plan, out: Path) -> dict[str, dict[str, Any]]:
    """Return the inputs by run; a fold's is filled once for all seeds."""
    found: dict[str, dict[str, Any]] = {}
    filled: dict[tuple[str, str], dict[str, Any]] = {}
    for run in plan.runs:
        key = run.fold, run.strategy.name
        base = out / run.name
        if key not in filled:
            parts = parts_of(plan.folds[run.fold])
            filling = replace(
                plan.filling, train=parts["train"], valid=parts["val"], notes=[], **_own(plan, run)
            )
            try:
                config = fill(run.strategy.config, filling, base / "input.json")
            except UserError as error:
                raise UserError(f"{run.strategy.path} for {run.name}: {error}") from None
            if not run.strategy.finetunes:
                config.pop("_dp_mft_input", None)  # of a filled input that is trained from scratch
            filled[key] = with_paths(config, relative_to(base))
            plan.notes += [f"{run.strategy.name}: {note}" for note in filling.notes]
        found[run.name] = with_seed(filled[key], run.seed)
    if plan.filling.checkpoint is not None:
        first = Pretrained.read(plan.filling.checkpoint).first
        plan.notes += unlike(plan.strategies, first["descriptor"])
    plan.notes[:] = dict.fromkeys(plan.notes)
    return found


def _own(plan: Plan, run: PlannedRun) -> dict[str, Any]:
    """Return what a template does not take: a checkpoint, auxiliary data."""
    own: dict[str, Any] = {} if run.strategy.finetunes else {"checkpoint": None, "aux_heads": {}}
    if not run.strategy.is_multi_task and any(one.is_multi_task for one in plan.strategies):
        own |= {"auxiliary": [], "aux_heads": {}, "aux_batch_sizes": {}, "shares": {}}
        own["temperature"] = None
    return own


def _check_property(configs: dict[str, dict[str, Any]]) -> None:
    """Raise if the runs do not learn the same property."""
    learned: dict[str, str] = {}
    for name, config in configs.items():
        branches = main_ones(read_branches(config))
        learned[", ".join(label for one in branches for label in one.labels)] = name
    if len(learned) > 1:
        listed = "; ".join(f"{name} learns {labels}" for labels, name in learned.items())
        raise UserError(
            f"the runs would learn different properties: {listed}; choose by --property"
        )


def _is_there(folder: Path, config: dict[str, Any]) -> bool:
    """Whether a run is there with its input.

    Raises
    ------
    UserError
        If something else is there.
    """
    if not folder.exists():
        return False
    try:
        old = json.loads((folder / "input.json").read_text())
    except (OSError, ValueError):
        raise UserError(f"{folder} is there, without an input.json; rename it") from None
    mine, theirs = flat(config), flat(old)
    for key in dict.fromkeys([*mine, *theirs]):
        if mine.get(key) != theirs.get(key):
            raise UserError(
                f"{folder} is there with another input: {key} is {theirs.get(key)}, and would be "
                f"{mine.get(key)}; choose another folder (-o), or remove the run"
            )
    return True


def _write_run(
    plan: Plan, run: PlannedRun, config: dict[str, Any], staged: Path, out: Path
) -> None:
    (staged / "input.json").write_text(json.dumps(config, indent=2) + "\n")
    script = run_script(
        out / run.name,
        config["training"].get("save_ckpt", "model.ckpt"),
        plan.filling.checkpoint if run.strategy.finetunes else None,
        plan.split,
    )
    (staged / "run.sh").write_text(script)


def _check(plan: Plan, new: list[str], staging: Path, progress: Callable[[str], None]) -> None:
    """Check new inputs, of one seed each, at the depth at which they will lie.

    Test structures that are in the training data are no error here, since published folds have
    some: ``dp-mft split`` says so.

    Raises
    ------
    UserError
        With all errors of all inputs.
    """
    from deepmd_mft.inputs.audit import check_input  # noqa: PLC0415  (imports torch)

    errors: dict[str, list[str]] = {}
    warnings: dict[str, list[str]] = {}
    first = {(run.fold, run.strategy.name): run for run in reversed(plan.runs) if run.name in new}
    runs = list(first.values())[::-1]
    for number, run in enumerate(runs):
        progress(f"checking {run.name} ({number + 1} of {len(runs)})")
        checkpoint = plan.filling.checkpoint if run.strategy.finetunes else None
        checkpoint = None if checkpoint is None else checkpoint.absolute()
        with _inside(staging / run.name):
            findings, _ = check_input(Path("input.json"), checkpoint, [])
        for found, texts in ((errors, findings.errors), (warnings, findings.warnings)):
            for text in texts:
                found.setdefault(text, []).append(run.name)
    if errors:
        listed = "\n".join(f"  {_whose(names, runs)}: {text}" for text, names in errors.items())
        raise UserError(f"nothing is written, since these trainings would fail:\n{listed}")
    plan.notes += [f"{_whose(names, runs)}: {text}" for text, names in warnings.items()]


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder, as a training does: the paths of its input start there."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _whose(names: list[str], runs: list[PlannedRun]) -> str:
    if len(names) == len(runs) > 1:
        return "all runs"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _record(plan: Plan, out: Path) -> dict[str, Any]:
    checkpoint = plan.filling.checkpoint
    return {
        "made_by": "dp-mft plan",
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "split": [os.path.relpath(one.absolute(), out) for one in plan.split],
        "split_sha256": {
            str(one / "split.json"): file_checksum(one / "split.json")
            for one in plan.split
            if (one / "split.json").is_file()
        },
        "checkpoint": None
        if checkpoint is None
        else {"path": str(checkpoint), "sha256": file_checksum(checkpoint)},
        "templates": {
            one.name: {
                "path": str(one.path),
                "sha256": file_checksum(one.path),
                "start": "checkpoint" if one.finetunes else "random weights",
            }
            for one in plan.strategies
        },
        "runs": {
            run.name: {"fold": run.fold, "strategy": run.strategy.name, "seed": run.seed}
            for run in plan.runs
        },
    }


def _replace(path: Path, text: str) -> None:
    """Write a file, unless it says so already: make goes by times."""
    if path.is_file() and path.read_text() == text:
        return
    with atomic_file(path) as partial:
        partial.write_text(text)
