"""What deepmd_mft.bridge.inherited looks at in deepmd-kit's trainer."""

import copy
import inspect

from deepmd.pt.model.model import get_model
from deepmd.pt.train import training
from deepmd.utils.finetune import FinetuneRuleItem

from tests.helpers.dp import DESCRIPTOR, ENERGY_NET, TYPE_MAP


def test_the_trainer_still_shifts_inherited_energies_and_leaves_resumed_branches():
    source = inspect.getsource(training.Trainer.__init__)
    assert "model = model_change_out_bias(" in source
    assert '"change-by-statistic"' in source
    assert "finetune_rule.get_resuming()" in source
    for attribute in ("finetune_links = finetune_links", "get_sample_func", "model_keys"):
        assert f"self.{attribute}" in source
    assert "functools.lru_cache" in source, "a sample is taken without keeping it by __wrapped__"
    assert "self._run()" in inspect.getsource(inspect.unwrap(training.Trainer.run))
    for name in ("get_model_branch", "get_random_fitting", "get_resuming"):
        assert hasattr(FinetuneRuleItem, name)


def test_models_still_say_what_they_are():
    params = {"type_map": TYPE_MAP, "descriptor": DESCRIPTOR, "fitting_net": ENERGY_NET}
    model = get_model(copy.deepcopy(params))
    assert "energy" in model.model_output_type()
    assert not model.has_spin()
    assert model.get_out_bias().shape == (1, len(TYPE_MAP), 1)
