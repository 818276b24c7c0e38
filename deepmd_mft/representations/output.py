"""What ``dp-mft analyze`` writes: CSV tables, a JSON record, words and figures."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmd_mft.files.records import write_record
from deepmd_mft.files.versions import package_versions
from deepmd_mft.plots import representations as figures
from deepmd_mft.representations.classes import atom_classes
from deepmd_mft.representations.embeddings import embed

if TYPE_CHECKING:
    from pathlib import Path

    from deepmd_mft.representations.backbone import Backbone
    from deepmd_mft.representations.classes import Edges
    from deepmd_mft.representations.collapse import Collapse
    from deepmd_mft.representations.domains import Domains
    from deepmd_mft.structures.structure_set import StructureSet

__all__ = ["write_collapse", "write_domains", "write_embedding", "write_summary"]


def write_summary(folder: Path, record: dict[str, Any]) -> None:
    """Write ``summary.json``: inputs, options and versions beside the results."""
    record = {**record, "versions": package_versions()}
    write_record(folder, "analyze", record, default=_plain)


def write_collapse(folder: Path, result: Collapse, record: dict[str, Any]) -> None:
    """Write tables, points, figures and words of a comparison.

    Parameters
    ----------
    folder : Path
        An empty folder.
    result : Collapse
        What was found.
    record : dict
        Inputs and options.
    """
    tables = {name: getattr(result, name) for name in ("clusters", "drift", "layers", "elements")}
    for name, rows in tables.items():
        _write_csv(folder / f"{name}.csv", rows)
    for kind, (labels, clouds) in result.clouds.items():
        points = {"labels": labels, "models": list(clouds), "points": list(clouds.values())}
        _save_arrays(folder / f"tsne_{kind}.npz", points)
        titles = {
            row["model"]: f"{row['model']}   DB {row['davies_bouldin']:.2f}"
            f" ({row['relative']:.2f} x)"
            for row in result.clusters
            if row["kind"] == kind and row["space"] == "t-SNE"
        }
        figures.draw_clouds(folder / f"tsne_{kind}.png", clouds, labels, titles)
    if result.drift:
        bars: dict[str, dict[str, tuple[float, float, float]]] = {}
        for row in result.drift:
            value = (row["wasserstein"], row["low"], row["high"])
            bars.setdefault(row["model"], {})[row["set"]] = value
        figures.draw_bars(
            folder / "drift.png",
            bars,
            models=list(record["models"]),
            ylabel="1-Wasserstein distance",
            title="Drift of atomic representations from the reference",
        )
    _draw_layers(folder / "layers.png", result.layers, list(record["models"]))
    if result.similarities:
        figures.draw_heatmaps(folder / "elements.png", result.similarities)
    (folder / "summary.md").write_text(_words(result))
    write_summary(folder, {**record, **tables, "notes": result.notes})


def write_domains(folder: Path, result: Domains, record: dict[str, Any]) -> None:
    """Write ranking, map and words of a comparison of data sets."""
    rows = [{**asdict(c), "missing_elements": " ".join(c.missing_elements)} for c in result.ranked]
    _write_csv(folder / "domains.csv", rows)
    floors = {"floor": result.floor, "structure_floor": result.structure_floor}
    _save_arrays(folder / "map.npz", {"sets": result.sets, **result.panels})
    figures.draw_map(folder / "map.png", result.panels, result.sets)
    (folder / "summary.md").write_text("\n".join(result.words) + "\n")
    write_summary(folder, {**record, **floors, "ranked": rows, "words": result.words})


def write_embedding(
    path: Path,
    backbone: Backbone,
    structures: StructureSet,
    edges: Edges | None,
    *,
    layers: bool,
) -> None:
    """Write the representations of a set to an npz file.

    Parameters
    ----------
    path : Path
        The file.
    backbone : Backbone
        A loaded checkpoint.
    structures : StructureSet
        What to represent.
    edges : Edges or None
        Edges to represent.
    layers : bool
        Write every atom after every layer too.
    """
    every = np.arange(structures.natoms.sum())
    seen = embed(
        backbone, structures, layer_atoms=every if layers else None, edges=edges, progress=True
    )
    record = {"model": backbone.record, "set": structures.record}
    arrays: dict[str, Any] = {
        **vars(seen),
        "structure": np.repeat(np.arange(len(structures)), structures.natoms),
        "number": np.concatenate([s.numbers for s in structures.structures]),
        "atom_class": atom_classes(structures),
        "record": np.array(json.dumps(record)),
    }
    if edges is not None:
        arrays.update(
            edge_structure=edges.structure,
            edge_centre=edges.centre,
            edge_vector=edges.vector,
            edge_class=edges.labels,
        )
    _save_arrays(path, arrays)


def _save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    named: Any = {name: np.asarray(values) for name, values in arrays.items()}
    with path.open("wb") as handle:  # numpy adds .npz to the name of a file, not to a handle
        np.savez(handle, **named)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle, lineterminator="\n")
        if rows:
            table.writerow(rows[0])
        table.writerows(row.values() for row in rows)


def _draw_layers(path: Path, rows: list[dict[str, Any]], models: list[str]) -> None:
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        title = row["quantity"] + (f", {row['set']}" if row["set"] else "")
        panels.setdefault(title, {}).setdefault(row["model"], {})[row["layer"]] = row["value"]
    words = {
        "weight drift": "|w - w0| / |w0|",
        "CKA": "linear CKA with the reference",
        "TransRate": "TransRate / coding rate",
    }
    if panels:
        ylabels = {title: words[title.split(",")[0]] for title in panels}
        figures.draw_lines(path, panels, models=models, ylabels=ylabels)


def _words(result: Collapse) -> str:
    """Tables in Markdown."""
    lines = ["## Separation of classes (Davies-Bouldin index: lower is more distinct)", ""]
    lines += _table(
        ["of", "space", "checkpoint", "index", "95 %", "relative", "silhouette"],
        [
            [
                row["kind"],
                row["space"],
                row["model"],
                f"{row['davies_bouldin']:.3f}",
                f"{row['low']:.3f} to {row['high']:.3f}",
                f"{row['relative']:.2f}",
                f"{row['silhouette']:.3f}",
            ]
            for row in result.clusters
        ],
    )
    sets = list(dict.fromkeys(row["set"] for row in result.drift))
    models = list(dict.fromkeys(row["model"] for row in result.drift))
    value = {(row["model"], row["set"]): row for row in result.drift}
    lines += ["", "## Drift from the reference (1-Wasserstein; over the reference's spread)", ""]
    lines += _table(
        ["checkpoint", *sets],
        [
            [
                m,
                *(
                    f"{value[m, s]['wasserstein']:.3f} ({value[m, s]['relative']:.2f})"
                    for s in sets
                ),
            ]
            for m in models
        ],
    )
    lines += ["", *(f"- {note}" for note in result.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)
