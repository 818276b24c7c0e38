"""What deepmd_mft.bridge.optimizer takes the place of in deepmd-kit's trainer."""

import inspect

from deepmd.dpmodel.utils.learning_rate import BaseLR
from deepmd.pt.train.training import Trainer


def test_the_trainer_still_makes_optimiser_and_scheduler_this_way():
    source = inspect.getsource(Trainer)
    assert "self._create_optimizer(" in source
    assert "self._load_optimizer_state(" in source
    assert "self._create_lr_scheduler(" in source
    assert "self.scheduler.get_last_lr()[0]" in source, "the first group is the one displayed"
    names = list(inspect.signature(inspect.unwrap(Trainer._create_optimizer)).parameters)
    assert names == ["self", "optimizer_class", "kwargs"]
    scheduler = inspect.unwrap(Trainer._create_lr_scheduler)
    assert list(inspect.signature(scheduler).parameters) == [
        "optimizer",
        "lr_schedule",
        "start_step",
    ]
    assert 'group["initial_lr"] = base_lr' in inspect.getsource(scheduler)
    assert "_decay_value" in BaseLR.__abstractmethods__
