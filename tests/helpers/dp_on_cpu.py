"""`dp --pt` in the processes of torchrun on a machine without a GPU.

DeePMD-kit's distributed training is for GPUs. Three calls are changed here: the backend (gloo, not
NCCL), the choice of a GPU (none), and the devices that DistributedDataParallel is given (none). The
rest is deepmd-kit's trainer and this package as they are. Every process writes the weights that it
ends with to ``rank-<number>.pt``.

Run by ``torchrun --nproc_per_node=2 dp_on_cpu.py --pt train input.json``.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

import torch
from torch import distributed
from torch.nn import parallel


class OnCpu(parallel.DistributedDataParallel):
    """Ignores the devices."""

    def __init__(self, module: Any, **options: Any) -> None:
        del options["device_ids"], options["output_device"]
        super().__init__(module, **options)


def _prepare() -> None:
    distributed.init_process_group = functools.partial(_begin, distributed.init_process_group)
    torch.cuda.set_device = lambda _number: None
    parallel.DistributedDataParallel = OnCpu
    trainer: Any = importlib.import_module("deepmd.pt.train.training").Trainer
    trainer.run = functools.partialmethod(_run_and_save, trainer.run)


def _begin(init_process_group: Any, backend: str) -> None:
    assert backend == "cuda:nccl,cpu:gloo"
    init_process_group(backend="gloo")


def _run_and_save(trainer: Any, run: Any) -> None:
    run(trainer)
    torch.save(trainer._get_inner_module().state_dict(), f"rank-{trainer.rank}.pt")


if __name__ == "__main__":
    _prepare()
    from deepmd.main import main

    sys.exit(main(sys.argv[1:]))
