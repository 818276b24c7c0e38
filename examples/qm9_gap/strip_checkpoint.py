"""Leave in a checkpoint only what fine-tuning and testing need.

A checkpoint of `dp --pt train` also holds the state of the optimizer, twice the size of the
network, which only `--restart` reads. What is left is the same format: `dp --pt train --finetune`,
`dp --pt show`, `dp --pt test --head` and `dp --pt freeze --head` take it.

    python strip_checkpoint.py model.ckpt-22000.pt pretrained/model.pt
"""

import argparse
from pathlib import Path

import torch


def strip(source: Path, target: Path) -> None:
    """Write ``source`` without its optimizer to ``target``, all at once or not at all."""
    checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or "_extra_state" not in checkpoint.get("model", {}):
        raise SystemExit(f"{source} is not a checkpoint of `dp --pt train`")
    partial = target.with_name(target.name + ".partial")
    torch.save({"model": checkpoint["model"]}, partial)
    partial.replace(target)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="model.ckpt-N.pt")
    parser.add_argument("target", type=Path, help="the file to write")
    args = parser.parse_args()
    strip(args.source, args.target)
    before, after = args.source.stat().st_size, args.target.stat().st_size
    print(f"{args.target}: {after / 1e6:.2f} MB, was {before / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
