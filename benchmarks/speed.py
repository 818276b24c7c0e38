"""Time and memory of training steps: deepmd-kit's DPA-3 against this package's.

    python benchmarks/speed.py [--part steps start evaluation]
        [--networks embedded silut full] [--rounds 12] [--threads 1]

`--part start` and `--part evaluation` are in `benchmarks/start.py`: the start of a training with
100,000 structures, and the evaluation of 16,000 molecules, against plain deepmd-kit's.

Each network runs as (a) plain deepmd-kit with the published selection, (b) plain deepmd-kit with
the tight one and (c) this package, each in a process of its own, with the same heads, weights and
batches of the embedded molecules. A step is what the trainer does: forward, loss, backward,
clipping and Adam. The processes take turns, step by step, so that what else runs on the machine
slows all of them alike; printed are ratios of processor times (of wall times on a GPU), their
least, median and largest over the rounds. Losses have to agree to 1e-5.

The embedded network is tight as it is: (a) and (b) are the same, and what the package was before it
had a DPA-3 of its own.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

DATA = Path(__file__).resolve().parents[1] / "examples" / "qm9_gap" / "data"
TYPE_MAP = ["H", "C", "N", "O", "F"]
PUBLISHED = {"e_sel": 1200, "a_sel": 300, "sel_reduce_factor": 10.0}
TIGHT = {"e_sel": 120, "a_sel": 30, "sel_reduce_factor": 1.0}
#: Differences from the published network: channels, layers, cutoffs; molecules in a batch.
NETWORKS: dict[str, dict[str, Any]] = {
    "embedded": {
        "repflow": {
            "n_dim": 64,
            "e_dim": 32,
            "a_dim": 16,
            "nlayers": 4,
            "update_residual": 0.5,
            "e_rcut": 4.5,
            "e_rcut_smth": 3.5,
            "a_rcut": 2.2,
            "a_rcut_smth": 1.8,
        },
        "activation": "tanh",
        "neuron": [120] * 3,
        "batch": {"force field": 7, "property": 16},
    },
    "silut": {
        "repflow": {"n_dim": 64, "e_dim": 32, "a_dim": 16, "nlayers": 3, "update_residual": 0.5},
        "activation": "silut:3.0",
        "neuron": [120] * 3,
        "batch": {"force field": 7, "property": 28},
    },
    "full": {
        "repflow": {},
        "activation": "silut:3.0",
        "neuron": [240] * 3,
        "batch": {"force field": 7, "property": 28},
    },
}
FULL = {
    "n_dim": 128,
    "e_dim": 64,
    "a_dim": 32,
    "nlayers": 16,
    "axis_neuron": 4,
    "e_rcut": 6.0,
    "e_rcut_smth": 5.3,
    "a_rcut": 4.0,
    "a_rcut_smth": 3.5,
    "fix_stat_std": 0.3,
    "a_compress_rate": 1,
    "a_compress_e_rate": 2,
    "a_compress_use_split": True,
    "update_angle": True,
    "smooth_edge_update": True,
    "use_dynamic_sel": True,
    "use_exp_switch": True,
    "update_style": "res_residual",
    "update_residual": 0.1,
    "update_residual_init": "const",
}
BRANCHES = ("force field", "property")
LEARNING_RATE = 1e-4
OTHERS = ("start", "evaluation")


def main(arguments: list[str] | None = None, *, gpu: bool = False) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=["steps", *OTHERS], default=["steps"])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument(
        "--rounds", type=int, default=12, help="steps of each branch, or runs of each command"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write all numbers as JSON")
    args = parser.parse_args(arguments)
    for name in ("OMP_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS"):
        os.environ[name] = str(args.threads)
    os.environ["DP_INTER_OP_PARALLELISM_THREADS"] = "1"
    if not gpu:
        os.environ["DEVICE"] = "cpu"
    found: dict[str, Any] = {}
    for network in args.networks if "steps" in args.part else []:
        found[network] = compare(network, args.rounds)
        show(network, found[network])
    for part in OTHERS:
        if part in args.part:
            module: Any = importlib.import_module("start")
            found[part] = getattr(module, part)(args.rounds, args.threads)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def compare(network: str, rounds: int) -> dict[str, Any]:
    """Run the variants of a network step by step in turn; return times, losses and memory."""
    variants = ("b", "c") if network == "embedded" else ("a", "b", "c")
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for variant in variants:
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, network, variant))
        process.start()
        there.close()  # so that the end of the process is seen here
        processes.append(process)
        pipes[variant] = here
    steps: dict[str, dict[str, list[Any]]] = {
        variant: {branch: [] for branch in BRANCHES} for variant in variants
    }
    for number in range(-2, rounds):  # the first two warm up
        for branch in BRANCHES:
            for variant, pipe in pipes.items():
                pipe.send(branch)
                answer = pipe.recv()
                if number >= 0:
                    steps[variant][branch].append(answer)
    ends = {}
    for variant, pipe in pipes.items():
        pipe.send("end")
        ends[variant] = pipe.recv()
    for process in processes:
        process.join()
    return {"steps": steps, "ends": ends}


def work(pipe: Connection, network: str, variant: str) -> None:
    """Be the process of one variant: a step whenever a branch's name comes."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    trainer = Trainer(network, variant)
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while (message := pipe.recv()) != "end":
        start, cpu = time.perf_counter(), time.process_time()
        loss = trainer.step(message)
        pipe.send((time.process_time() - cpu, time.perf_counter() - start, loss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(
        {
            "memory GiB": (peak - idle) / 2**20 if not trainer.gpu else trainer.gpu_memory(),
            "gflop": {branch: trainer.count(branch) for branch in BRANCHES},
            "gflop/s": trainer.rate(),
        }
    )


class Trainer:
    """Two branches on one backbone, as deepmd-kit's trainer steps them."""

    def __init__(self, network: str, variant: str) -> None:
        import torch  # noqa: PLC0415
        from deepmd.pt.model.model import get_model  # noqa: PLC0415
        from deepmd.pt.train.training import get_loss  # noqa: PLC0415
        from deepmd.pt.utils import env  # noqa: PLC0415

        self.gpu = env.DEVICE.type == "cuda"
        self.torch, self.device = torch, env.DEVICE
        branches = branch_inputs(network, variant)
        self.models = {k: get_model(copy.deepcopy(v)).to(env.DEVICE) for k, v in branches.items()}
        backbone = self.models["force field"].get_descriptor()
        if variant == "c":
            from deepmd_mft.backbones.switch import speed_up_models  # noqa: PLC0415

            speed_up_models(self.models.values())
        self.models["property"].get_descriptor().share_params(backbone, 0, resume=True)
        self.losses = {
            branch: get_loss(loss, LEARNING_RATE, len(TYPE_MAP), self.models[branch])
            for branch, loss in copy.deepcopy(LOSSES).items()
        }
        parameters = {id(p): p for m in self.models.values() for p in m.parameters()}
        self.parameters = list(parameters.values())
        self.optimizer = torch.optim.Adam(self.parameters, lr=LEARNING_RATE)
        batch = NETWORKS[network]["batch"]
        self.batches = {branch: self._batch(branch, batch[branch]) for branch in BRANCHES}

    def _batch(self, branch: str, number: int) -> tuple[dict[str, Any], dict[str, Any], int]:
        """Return the inputs and labels of a batch, without padding, and its atoms per frame."""
        folder = DATA / ("aux_train/20" if branch == "force field" else "train") / "set.000"
        read = {path.stem: np.load(path) for path in folder.glob("*.npy")}
        sizes = (read["real_atom_types"] >= 0).sum(1)
        natoms = 20 if branch == "force field" else int(np.bincount(sizes).argmax())
        rows = np.flatnonzero(sizes == natoms)
        rows = np.resize(rows, number)

        def tensor(name: str, *shape: int) -> Any:
            values = read[name][rows].reshape(number, -1)[:, : int(np.prod(shape))]
            return self.torch.tensor(values, device=self.device).reshape(number, *shape)

        inputs = {
            "coord": tensor("coord", natoms, 3).double(),
            "atype": tensor("real_atom_types", natoms).long(),
            "box": None,
        }
        if branch == "property":
            return inputs, {"gap": tensor("gap", 1).double(), "find_gap": 1.0}, natoms
        labels = {"energy": tensor("energy", 1).double(), "force": tensor("force", natoms, 3)}
        labels["force"] = labels["force"].double()
        return inputs, {**labels, "find_energy": 1.0, "find_force": 1.0}, natoms

    def step(self, branch: str) -> float:
        """Do one training step; return its loss."""
        inputs, labels, natoms = self.batches[branch]
        self.optimizer.zero_grad(set_to_none=True)
        _, loss, _ = self.losses[branch](
            dict(inputs), self.models[branch], dict(labels), natoms, LEARNING_RATE
        )
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        return float(loss)  # waits for the device

    def count(self, branch: str) -> float:
        """Return the matrix products of a step, in 10^9 operations."""
        from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC0415
        from torch.utils.flop_counter import flop_registry  # noqa: PLC0415

        class Counter(TorchDispatchMode):
            total = 0

            def __torch_dispatch__(
                self, func: Any, _types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                out = func(*args, **(kwargs or {}))
                formula = flop_registry.get(func._overloadpacket)  # noqa: SLF001
                if formula is not None:
                    self.total += formula(*args, **(kwargs or {}), out_val=out)
                return out

        with Counter() as counter:
            self.step(branch)
        return counter.total / 1e9

    def rate(self) -> float:
        """Return the rate of a large matrix product in float32, in 10^9 operations per second."""
        matrix = self.torch.randn(1024, 1024, device=self.device)
        best = np.inf
        for _ in range(10):
            start = time.perf_counter()
            float((matrix @ matrix)[0, 0])
            best = min(best, time.perf_counter() - start)
        return 2 * 1024**3 / best / 1e9

    def gpu_memory(self) -> float:
        """Return the most memory that tensors took, in GiB."""
        return float(self.torch.cuda.max_memory_allocated() / 2**30)


def branch_inputs(network: str, variant: str) -> dict[str, dict[str, Any]]:
    """Return the JSON of the two branches."""
    chosen = NETWORKS[network]
    selection = PUBLISHED if variant == "a" else TIGHT
    descriptor = {
        "type": "dpa3",
        "repflow": {**FULL, **selection, **chosen["repflow"]},
        "activation_function": chosen["activation"],
        "precision": "float32",
        "use_tebd_bias": False,
        "concat_output_tebd": False,
        "seed": 1,
    }
    net = {"neuron": chosen["neuron"], "resnet_dt": True, "precision": "float32", "seed": 1}
    common = {"type_map": TYPE_MAP, "descriptor": descriptor}
    energy = {**net, "type": "ener", "activation_function": chosen["activation"]}
    own = {"type": "property", "property_name": "gap", "intensive": True}
    head = {**net, **own, "activation_function": "tanh"}
    return {
        "force field": {**common, "fitting_net": energy},
        "property": {**common, "fitting_net": head},
    }


#: JSON of the losses, with the published prefactors.
LOSSES: dict[str, dict[str, Any]] = {
    "force field": {
        "type": "ener",
        "start_pref_e": 0.2,
        "limit_pref_e": 20,
        "start_pref_f": 100,
        "limit_pref_f": 60,
        "start_pref_v": 0.0,
        "limit_pref_v": 0.0,
    },
    "property": {"type": "property", "loss_func": "mse"},
}


def show(network: str, found: dict[str, Any]) -> None:
    """Print the ratios of one network."""
    steps, ends = found["steps"], found["ends"]
    kind = 1 if "cuda" in os.environ.get("DEVICE", "cpu") else 0
    print(f"\n{network}")
    for other in (variant for variant in steps if variant != "c"):
        mean = []
        for branch in BRANCHES:
            pairs = zip(steps[other][branch], steps["c"][branch], strict=True)
            ratios = [theirs[kind] / ours[kind] for theirs, ours in pairs]
            mean.append(ratios)
            line(f"({other}) / (c), {branch}", ratios)
        line(
            f"({other}) / (c), mean of both",
            [float(np.mean(pair)) for pair in zip(*mean, strict=True)],
        )
        memory = ends["c"]["memory GiB"] / ends[other]["memory GiB"]
        print(f"  memory of (c) / ({other}): {memory:.2f} of {ends[other]['memory GiB']:.2f} GiB")
        losses = [
            abs(theirs[2] - ours[2]) / abs(theirs[2])
            for branch in BRANCHES
            for theirs, ours in zip(steps[other][branch], steps["c"][branch], strict=True)
        ]
        print(f"  largest relative difference of losses: {max(losses):.1e}")
    for variant in steps:
        for branch in BRANCHES:
            best = min(step[kind] for step in steps[variant][branch])
            share = ends[variant]["gflop"][branch] / ends[variant]["gflop/s"] / best
            print(
                f"  ({variant}) {branch}: {1e3 * best:.0f} ms at best, "
                f"{100 * share:.0f} % of it matrix products at the machine's rate"
            )
    sys.stdout.flush()


def line(name: str, ratios: list[float]) -> None:
    """Print the least, median and largest ratio."""
    middle = statistics.median(ratios)
    print(f"  {name:36} {min(ratios):6.2f} {middle:6.2f} {max(ratios):6.2f}  (min, median, max)")


if __name__ == "__main__":
    sys.exit(main())
