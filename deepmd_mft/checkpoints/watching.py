"""Validation of the property branch while it is trained: the best checkpoint, early stopping.

The numbers are those of ``dp-mft select``: every ``freq`` steps the whole validation set, by a
second model of the branch into which the weights go. Test sets are not looked at.
"""

from __future__ import annotations

import copy
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from deepmd_mft.bridge.validation import StopTraining, build_branch
from deepmd_mft.checkpoints.branch import branches_of
from deepmd_mft.checkpoints.file import read_state
from deepmd_mft.checkpoints.run import BEST_PREFIX
from deepmd_mft.checkpoints.selection import BEST, RECORD, Validation, check_own, link_best, signed
from deepmd_mft.errors import UserError
from deepmd_mft.evaluation.metrics import LARGER_IS_BETTER
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.staging import atomic_file
from deepmd_mft.inference.predictor import Predictor

if TYPE_CHECKING:
    from deepmd_mft.bridge.validation import Training

log = logging.getLogger(f"deepmd.{__name__}")  # below deepmd's logger, to share its handlers

#: One row for each look at the validation data.
TABLE = "validation.csv"
#: Whose ``selection.json`` may be replaced.
MAKERS = ("dp-mft select", "dp --pt train")
#: Under what checkpoints carry the state.
NOTES = "dp_mft_validation"


class Watch:
    """Validates a training, keeps its best checkpoint, ends it when that gets no better.

    Parameters
    ----------
    training : Training
    branch : str
        The property branch; empty for a single-task model.
    systems : list of Path
        Its validation data.
    options : dict
        ``freq``, ``patience``, ``metric``, as in the loss.
    where : str
        How messages call the branch.
    folder : Path
        Of the run.
    restart : Path, optional
        The checkpoint that the training goes on from.
    """

    def __init__(
        self,
        training: Training,
        branch: str,
        systems: list[Path],
        options: dict[str, Any],
        where: str,
        folder: Path,
        restart: Path | None = None,
    ) -> None:
        self.training, self.folder = training, folder
        self.freq, self.patience = int(options["freq"]), int(options["patience"])
        self.asked = options["metric"]
        if self.patience and training.changes_bias_at_the_end:
            raise UserError(
                "training/change_bias_after_training and the patience of the loss's validation do "
                "not go together: the bias would change after the best checkpoint; leave one out"
            )
        self.notes: dict[str, Any] = {
            "best": None,
            "step": None,
            "since": 0,
            "factor": 1.0,
            "looked": 0,
        }
        if restart is not None:
            self.notes |= _notes_in(restart)
        if self.patience and self.notes["since"] >= self.patience:
            log.warning(
                "The training that is restarted had ended early (validation was best at step %s); "
                "it ends again at the next look that is not better", self.notes["step"],
            )  # fmt: skip
        training.notes[NOTES] = self.notes
        self.schedule = training.schedule
        if hasattr(self.schedule, "set_plateau"):
            self.schedule.set_plateau(self.notes["factor"])
        self.validation: Validation | None = None
        if training.is_chief:
            self.validation = self._prepare(branch, systems, where)
        self.notes |= training.agree(dict(self.notes))  # the first process has looked for the best

    def _prepare(self, branch: str, systems: list[Path], where: str) -> Validation:
        if not systems:
            raise UserError(
                f"{where}: the loss asks for validation, but there is no validation_data; give it "
                "some, or take validation out of the loss"
            )
        check_own(self.folder, overwrite=True)
        self._check_files()
        params = branches_of(self.training.model_params)[branch]
        model = build_branch(copy.deepcopy(params))
        from deepmd_mft.backbones.switch import speed_up_models  # noqa: PLC0415  (slow to import)

        speed_up_models([model])
        predictor = Predictor(model, params, branch, Path(f"{self.training.prefix} (training)"))
        validation = Validation(systems, where, predictor)
        self.metric = validation.choose_metric(self.asked)
        self.checksums = validation.structures.checksum()
        self._rows = self._earlier()
        self._forget_given_up()
        log.info(
            "Validation of %s on %d structures every %d steps (%s %s); best checkpoint: %s",
            where, len(validation.structures), self.freq, self.metric, validation.about, BEST,
        )  # fmt: skip
        return validation

    # --- after every step -----------------------------------------------------------------------

    def run(self, *, step_id: int, display_step: int, lr: float, save_checkpoint: Any) -> None:
        """Validate, if it is time.

        Raises
        ------
        StopTraining
            When ``patience`` looks brought nothing better.
        """
        del step_id
        if display_step % self.freq and display_step != self.training.num_steps:
            return
        if display_step <= self.notes["looked"]:
            return  # deepmd-kit does the step of the checkpoint again at a restart
        self.notes["looked"] = display_step
        score = self._look(display_step, lr) if self.validation is not None else None
        score = self.training.agree(score)
        best = self.notes["best"]
        better = best is None or score < best
        if better:
            before = self._path(self.notes["step"])
            self.notes.update(best=score, step=display_step, since=0)
            path = self._path(display_step)
            save_checkpoint(path, lr=lr, step=display_step - 1)
            if self.validation is not None:
                self._publish(path, {before, self._recorded()} - {path, None})
        else:
            self.notes["since"] += 1
        if hasattr(self.schedule, "see_validation"):
            self._reduce(display_step)
        if self.patience and self.notes["since"] >= self.patience:
            self.training.save_last(display_step, lr)
            raise StopTraining(self._why(display_step))

    def _reduce(self, step: int) -> None:
        """Reduce the learning rate on a plateau."""
        factor = self.schedule.see_validation(step, self.notes["since"])
        if factor != self.notes["factor"]:
            log.info("Plateau: the learning rate is multiplied by %g from here on", factor)
            self.notes["factor"] = factor
            self.training.apply_schedule()

    def _look(self, step: int, lr: float) -> float:
        """Measure, add a row to the table, return a score of which smaller is better."""
        assert self.validation is not None  # noqa: S101
        numbers = self.validation.measure(self.training.weights())
        score = signed(self.metric, numbers[self.metric])
        self._rows.append({"step": step, "lr": lr, **numbers})
        with atomic_file(self.folder / TABLE) as partial:
            pd.DataFrame(self._rows).to_csv(partial, index=False)
        log.info("Step %d: validation %s = %.6g", step, self.metric, numbers[self.metric])
        return score

    def _path(self, step: int | None) -> Path:
        """Return the best checkpoint of a step."""
        return (self.folder / self.training.prefix).parent / f"{BEST_PREFIX}-{step}.pt"

    def _publish(self, path: Path, before: set[Path | None]) -> None:
        """Point at a new best checkpoint, and remove those before."""
        assert self.validation is not None  # noqa: S101
        outputs = list(self.validation.labels)
        record = {
            "made_by": MAKERS[1],
            "property": outputs[0] if len(outputs) == 1 else outputs,
            "validation": self.checksums,
            "metric": self.metric,
            "about": self.validation.about,
            "best": os.path.relpath(path, self.folder),
            "sha256": file_checksum(path),
            "averages": [],
        }
        with atomic_file(self.folder / RECORD) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n")
        link_best(path, self.folder / BEST)
        for one in before:
            if one is not None:
                one.unlink(missing_ok=True)

    def _why(self, step: int) -> str:
        best, metric = self.notes["best"], self.asked or getattr(self, "metric", "error")
        value = -best if metric in LARGER_IS_BETTER else best
        return (
            f"Training ended early at step {step}: the validation {metric} was best at step "
            f"{self.notes['step']} ({value:.6g}), and {self.patience} looks since brought nothing "
            f"better (patience). The best checkpoint is {BEST}"
        )

    # --- what an earlier start left -------------------------------------------------------------

    def _check_files(self) -> None:
        """Raise if a file of a name that a validation writes is somebody else's."""
        table, record = self.folder / TABLE, self.folder / RECORD
        foreign = None
        if table.exists() and not table.read_text(errors="replace").startswith("step,lr,"):
            foreign = table
        try:
            if record.exists() and json.loads(record.read_text())["made_by"] not in MAKERS:
                foreign = record
        except (OSError, ValueError, KeyError, TypeError):
            foreign = record
        if foreign is not None:
            raise UserError(
                f"{foreign} was not written by dp-mft select or a training with validation, which "
                "would replace it; rename it, or train in another folder"
            )

    def _earlier(self) -> list[dict[str, Any]]:
        """Return the rows of the table up to where a restart goes on."""
        path = self.folder / TABLE
        if not self.training.restarted or not path.is_file():
            return []
        table = pd.read_csv(path)
        kept = table[table["step"] <= self.notes["looked"]]
        return [{str(k): v for k, v in row.items()} for row in kept.to_dict("records")]

    def _recorded(self) -> Path | None:
        """Return the best checkpoint that a training recorded here, and may remove."""
        try:
            record = json.loads((self.folder / RECORD).read_text())
            own = record["made_by"] == MAKERS[1]
            path = self.folder / record["best"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return path if own and path.name.startswith(BEST_PREFIX) and path.is_file() else None

    def _forget_given_up(self) -> None:
        """Begin anew with the best where its checkpoint is not at hand.

        A restart from an earlier checkpoint gives the later steps up, among them perhaps the best.
        """
        if self._path(self.notes["step"]).is_file():
            return
        if self.notes["best"] is not None:
            log.info(
                "The best checkpoint so far (step %s) is not in the folder any more; the next one "
                "that is validated takes its place", self.notes["step"],
            )  # fmt: skip
        self.notes.update(best=None, step=None)


def _notes_in(checkpoint: Path) -> dict[str, Any]:
    """Return the state in a checkpoint; nothing if its training was not validated."""
    infos = read_state(checkpoint)["_extra_state"]["train_infos"]
    return dict(infos.get(NOTES) or {})
