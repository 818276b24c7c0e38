"""``dp-mft check``: everything that would fail or mislead later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("input", type=Path, help="the JSON of `dp --pt train`")
    parser.add_argument("--finetune", type=Path, metavar="FILE", help="the pretrained checkpoint")
    parser.add_argument(
        "--test",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="test sets, to see whether their structures are in the training data",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Check and print; 0 if the training may start."""
    from deepmd_mft.inputs.audit import check_input  # noqa: PLC0415
    from deepmd_mft.structures.structure_set import find_sets  # noqa: PLC0415

    tests = find_sets(args.test) if args.test else []
    findings, facts = check_input(args.input, args.finetune, tests)
    if args.json:
        record = {
            "may_train": not findings.errors,
            "errors": findings.errors,
            "warnings": findings.warnings,
            "facts": facts,
        }
        print(json.dumps(record, indent=1))
        return 1 if findings.errors else 0
    for name, own in facts.items():
        if isinstance(own, dict) and own:
            print(_one_line(name, own))
    if facts.get("memory_gib"):
        print(f"memory of a step: roughly {facts['memory_gib']:g} GiB")
    for kind, texts in (("error", findings.errors), ("warning", findings.warnings)):
        for text in texts:
            print(f"{kind}: {text}")
    verdict = "do not start the training" if findings.errors else "the training may start"
    print(f"{len(findings.errors)} error(s), {len(findings.warnings)} warning(s): {verdict}")
    return 1 if findings.errors else 0


def _one_line(name: str, facts: dict[str, Any]) -> str:
    """Say what a branch is trained on; steps and batches are not known of a broken input."""
    text = f"{name}: {facts['frames']} training structures of {', '.join(facts['elements'])}"
    if "steps" not in facts:
        return text
    return (
        f"{text}, {facts['frames_per_batch']:g} per batch, {facts['steps']} steps, "
        f"{facts['epochs']:g} epochs"
    )
