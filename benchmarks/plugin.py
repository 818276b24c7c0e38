"""What the plugin costs at import, and how close its head is to deepmd-kit's own.

    python benchmarks/plugin.py

Import time is the processor time of a fresh Python, with and without the plugin in turn, medians
of one run: wall time follows whatever else the machine does.
"""

from __future__ import annotations

import copy
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch

REPEATS = 15
PAIRS = ((True, "mean"), (False, "sum"))


def import_seconds(hide_plugin: bool, site: Path) -> float:
    """Return the processor time of `python -c "import deepmd.pt"`."""
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import deepmd.pt"
    code += "; assert ('deepmd_mft.plugin' in sys.modules) == " + str(not hide_plugin)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # away from the repository, whose folder would offer the plugin
    subprocess.run([sys.executable, "-S", "-c", code], check=True, cwd=site)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def linked_site(folder: Path, hide_plugin: bool) -> Path:
    """Link the installed packages into a folder, with or without the plugin."""
    installed = Path(sysconfig.get_paths()["purelib"])
    site = folder / "lib" / "python" / "site-packages"
    site.mkdir(parents=True)
    for entry in installed.iterdir():
        if "deepmd_mft" not in entry.name:
            (site / entry.name).symlink_to(entry)
    for library in installed.parents[1].iterdir():  # MPI, found relative to site-packages
        if not library.name.startswith("python"):
            (site.parents[1] / library.name).symlink_to(library)
    if not hide_plugin:
        (site / "deepmd_mft").symlink_to(Path(__file__).resolve().parents[1] / "deepmd_mft")
        for info in installed.glob("deepmd_mft-*"):
            (site / info.name).symlink_to(info)
    return site


def import_cost() -> None:
    """Print the milliseconds that the plugin adds to importing deepmd.pt."""
    with tempfile.TemporaryDirectory() as folder:
        sites = {hide: linked_site(Path(folder) / str(hide), hide) for hide in (True, False)}
        times: dict[bool, list[float]] = {True: [], False: []}
        for hide, site in sites.items():
            import_seconds(hide, site)  # fills the disk cache
        for _ in range(REPEATS):
            for hide, site in sites.items():
                times[hide].append(import_seconds(hide, site))
    plain, with_plugin = (1000 * statistics.median(times[hide]) for hide in (True, False))
    print(
        f"import deepmd.pt: {plain:.0f} ms without, {with_plugin:.0f} ms with the plugin: "
        f"{with_plugin - plain:+.0f} ms (median of {REPEATS}, bound 50 ms)"
    )


def equal_outputs() -> None:
    """Print the largest relative difference between our head and the native one."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.helpers.models import build_property, frame, with_statistics  # noqa: PLC0415

    for intensive, readout in PAIRS:
        worst = 0.0
        for seed in range(20):
            ours = with_statistics(build_property(intensive=intensive), seed=seed)
            native = build_property("standard", intensive=intensive)
            native.load_state_dict(copy.deepcopy(ours.state_dict()))
            coord, atype, box = frame(natoms=20, seed=seed, periodic=seed % 2 == 0)
            with torch.no_grad():
                expected, got = (m(coord, atype, box)["gap"] for m in (native, ours))
            worst = max(worst, float(((got - expected) / expected).abs().max()))
        print(f"readout {readout}, bias element: largest relative difference {worst:.1e} (1e-10)")


if __name__ == "__main__":
    torch.set_num_threads(1)
    import_cost()
    equal_outputs()
