"""What deepmd_mft.bridge.validation takes the place of in deepmd-kit's trainer."""

import inspect

from deepmd.pt.train.training import Trainer
from deepmd.pt.train.wrapper import ModelWrapper


def test_the_trainer_still_calls_a_validator_after_every_step():
    run = inspect.getsource(inspect.unwrap(Trainer._run))
    call = run.index("self.full_validator.run(")
    for word in ("step_id=", "display_step=", "lr=", "save_checkpoint="):
        assert word in run[call : call + 200]
    assert call < run.index("should_save_checkpoint = "), "its notes are in the step's checkpoint"
    assert run.index("self.scheduler.step()") < call, "the rates of the next step are set by then"
    create = inspect.signature(inspect.unwrap(Trainer._create_full_validators))
    assert list(create.parameters) == ["self", "validating_params", "validation_data"]
    made = inspect.getsource(Trainer.__init__)
    assert made.index("self._create_lr_scheduler(") < made.index("self._create_full_validators(")
    assert "self._run()" in inspect.getsource(Trainer.run)


def test_checkpoints_still_carry_notes():
    assert '"train_infos": self.train_infos' in inspect.getsource(ModelWrapper.get_extra_state)
    assert list(inspect.signature(Trainer.save_model).parameters)[:4] == [
        "self", "save_path", "lr", "step",
    ]  # fmt: skip
    for name in ("_broadcast_value_from_rank0", "_get_inner_module", "save_ema_model"):
        assert hasattr(Trainer, name)
