"""Representations of checkpoints, against deepmd-kit's own evaluation and symmetries."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from deepmd.infer import DeepPot

from deepmd_mft.backbones.families import family_of
from deepmd_mft.errors import UserError
from deepmd_mft.representations.backbone import load_checkpoint
from deepmd_mft.representations.classes import Edges, Windows, atom_classes, find_edges
from deepmd_mft.representations.domains import analyse_domains
from deepmd_mft.representations.elements import element_similarity
from deepmd_mft.representations.embeddings import embed
from deepmd_mft.structures.elements import ELEMENTS
from deepmd_mft.structures.structure import Structure, checked
from deepmd_mft.structures.structure_set import StructureSet
from tests.conftest import SHARED
from tests.helpers.descriptors import DPA2, DPA4, SE_E2_A
from tests.helpers.dp import DATA, DESCRIPTOR, PROPERTY_NET, TYPE_MAP
from tests.helpers.models import save_checkpoint, structure_set

WINDOWS = Windows((2.0, 3.0), (3.2, 3.9))


@pytest.fixture(scope="module")
def backbone(pretrained):
    return load_checkpoint("pretrained", pretrained)


@pytest.fixture(scope="module")
def molecules():
    return StructureSet("ood", [DATA / "ood_test"], most=25, seed=1)


def test_nodes_are_what_deepmd_evaluates(pretrained, backbone, molecules):
    seen = embed(backbone, molecules)
    model = DeepPot(str(pretrained), head="GFN2")
    for structure, start in zip(molecules.structures[:5], molecules.starts, strict=False):
        types = [
            TYPE_MAP.index({1: "H", 6: "C", 7: "N", 8: "O", 9: "F"}[z]) for z in structure.numbers
        ]
        expected = model.eval_descriptor(structure.positions[None], None, types)[0]
        got = seen.node[start : start + len(types)]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_what_is_kept_is_what_was_asked_for(backbone, molecules):
    every = np.arange(molecules.natoms.sum())
    full = embed(backbone, molecules, layer_atoms=every)
    assert full.layers.shape == (2, molecules.natoms.sum(), 12)
    np.testing.assert_array_equal(full.layers[-1], full.node)
    some = np.array([3, 17, molecules.natoms.sum() - 1])
    part = embed(backbone, molecules, atoms=some, layer_atoms=some[:2], batch_atoms=1)
    np.testing.assert_allclose(part.node, full.node[some], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(part.layers, full.layers[:, some[:2]], rtol=1e-5, atol=1e-7)
    means = [
        full.layers[:, s : s + n].mean(axis=1)
        for s, n in zip(molecules.starts, molecules.natoms, strict=True)
    ]
    np.testing.assert_allclose(full.pooled, np.stack(means, axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(part.pooled, full.pooled, rtol=1e-4, atol=1e-6)
    layers = family_of(backbone.descriptor).layers(backbone.descriptor)
    assert all("forward" not in vars(layer) for layer in layers)


def test_permuted_and_turned_molecules_have_the_same_representations(backbone, molecules):
    rng = np.random.default_rng(0)
    orders = [rng.permutation(n) for n in molecules.natoms]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    moved = StructureSet.of(
        "moved",
        [
            Structure(s.numbers[o], s.positions[o] @ turn + 5.0)
            for s, o in zip(molecules.structures, orders, strict=True)
        ],
    )
    rows = np.concatenate([s + o for s, o in zip(molecules.starts, orders, strict=True)])
    before, after = embed(backbone, molecules), embed(backbone, moved)
    np.testing.assert_allclose(after.node, before.node[rows], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.edge_pooled, before.edge_pooled, rtol=1e-4, atol=1e-6)
    edges = [find_edges(s, ["C-H"], WINDOWS) for s in (molecules, moved)]
    features = [
        embed(backbone, s, edges=e).edge for s, e in zip((molecules, moved), edges, strict=True)
    ]
    orders = [np.lexsort((np.linalg.norm(e.vector, axis=1).round(5), e.structure)) for e in edges]
    distances = [np.linalg.norm(e.vector, axis=1)[o] for e, o in zip(edges, orders, strict=True)]
    np.testing.assert_allclose(*distances, atol=1e-5)
    sums = [np.nansum(f) for f in features]
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)


def test_edges_are_those_of_the_descriptor(backbone):
    """A molecule of which every edge is asked for: their mean is the mean over all edges."""
    atoms = molecule("CH3OH")
    structures = structure_set(atoms)
    vectors = atoms.positions[None] - atoms.positions[:, None]
    centre, neighbour = np.nonzero(~np.eye(len(atoms), dtype=bool))
    edges = Edges(
        np.zeros(len(centre), dtype=int),
        centre,
        vectors[centre, neighbour],
        np.array(["any"] * len(centre)),
    )
    seen = embed(backbone, structures, edges=edges)
    assert np.isfinite(seen.edge).all()
    np.testing.assert_allclose(seen.edge.mean(axis=0), seen.edge_pooled[0], rtol=1e-4, atol=1e-6)
    assert len(np.unique(seen.edge.round(6), axis=0)) > 10


def test_edges_of_a_crystal_go_through_the_cell(backbone):
    crystal = bulk("C", "diamond", a=3.567)
    crystal.rattle(0.05, seed=1)
    edges = find_edges(structure_set(crystal), ["C-C"], Windows((2.3, 2.7), (5.0, 6.0)))
    assert set(edges.labels) == {"C-C near", "C-C middle", "C-C far"}
    one = embed(backbone, structure_set(crystal), edges=edges)
    inside = ~np.char.endswith(edges.labels, "far")  # the cutoff is 4 Angstrom
    np.testing.assert_array_equal(np.isfinite(one.edge).all(axis=1), inside)
    eight = crystal.repeat(2)
    again = find_edges(structure_set(eight), ["C-C"], Windows((2.3, 2.7), (5.0, 6.0)))
    many = embed(backbone, structure_set(eight), edges=again)
    np.testing.assert_allclose(many.node[:2], one.node, rtol=1e-4, atol=1e-6)
    finite = many.edge[np.isfinite(many.edge).all(axis=1)]
    assert len(finite) == 8 * inside.sum()
    np.testing.assert_allclose(finite.mean(axis=0), one.edge[inside].mean(axis=0), atol=1e-5)


def test_branches_of_a_multi_task_checkpoint_share_the_descriptor(mft_run, molecules):
    path = mft_run / "model.ckpt-6.pt"
    chosen = load_checkpoint("mft", path)
    named = load_checkpoint("mft", path, "property")
    assert (chosen.record["branch"], named.record["branch"]) == ("GFN2", "property")
    np.testing.assert_array_equal(embed(chosen, molecules).node, embed(named, molecules).node)
    with pytest.raises(UserError, match="no branch 'gap'; it has GFN2, property"):
        load_checkpoint("mft", path, "gap")


def test_branches_with_own_descriptors_must_be_named(mft_run, tmp_path):
    state = torch.load(mft_run / "model.ckpt-6.pt", weights_only=True)
    key = next(k for k in state["model"] if k.startswith("model.property.") and "layers.0" in k)
    state["model"][key] = state["model"][key] + 1.0
    torch.save(state, tmp_path / "own.pt")
    with pytest.raises(UserError, match="descriptors of their own"):
        load_checkpoint("own", tmp_path / "own.pt")


@pytest.mark.parametrize(
    ("head", "model_type"),
    [
        (PROPERTY_NET, "mft"),
        ({**PROPERTY_NET, "readout": "attention"}, "mft"),
        ({"type": "mft_dipole_norm", "property_name": "mu", "neuron": [8]}, "mft"),
        ({"type": "property", "property_name": "gap", "neuron": [8]}, "standard"),
    ],
)
def test_any_head(tmp_path, head, model_type, molecules, backbone):
    model = load_checkpoint(
        "m", save_checkpoint(tmp_path / "m.pt", type=model_type, fitting_net=head)
    )
    assert embed(model, molecules).node.shape == (molecules.natoms.sum(), 12)
    with pytest.raises(UserError, match="single-task"):
        load_checkpoint("m", tmp_path / "m.pt", "property")


@pytest.mark.parametrize(
    ("descriptor", "nlayers", "e_dim"),
    [(DPA2, 2, 4), (SE_E2_A, 0, 0), ({**DESCRIPTOR, "concat_output_tebd": True}, 2, 8)],
)
def test_other_descriptors(tmp_path, molecules, descriptor, nlayers, e_dim):
    model = load_checkpoint("m", save_checkpoint(tmp_path / "m.pt", descriptor=descriptor))
    edges = find_edges(molecules, ["C-H"], WINDOWS)
    seen = embed(model, molecules, edges=edges)
    assert model.nlayers == nlayers
    assert seen.pooled.shape[:2] == (max(1, nlayers), len(molecules))
    assert seen.edge.shape == (len(edges), e_dim)
    assert np.isfinite(seen.node).all()
    assert seen.node.std(axis=0).max() > 0


def test_elements(backbone):
    symbols, cosines = element_similarity(backbone)
    assert symbols == TYPE_MAP
    np.testing.assert_allclose(np.diag(cosines), 1.0)
    np.testing.assert_allclose(cosines, cosines.T)


def test_unknown_elements_and_files(backbone, tmp_path, mft_run):
    with pytest.raises(UserError, match=r"structure set:0 has Si, which the model"):
        embed(backbone, structure_set(bulk("Si")))
    some, note = structure_set(bulk("Si"), molecule("H2O")).with_elements(TYPE_MAP)
    assert [one.cell for one in some.structures] == [None]
    assert "1 of 2 structures have Si" in note
    with pytest.raises(UserError, match="frozen"):
        load_checkpoint("f", mft_run / "property.pth")
    (tmp_path / "model.pt").write_bytes(b"PK no checkpoint")
    with pytest.raises(UserError, match="not a complete checkpoint"):
        load_checkpoint("m", tmp_path / "model.pt")


CRYSTALS = SHARED / "crystals"


@pytest.mark.skipif(not CRYSTALS.is_dir(), reason=f"no crystals in {CRYSTALS}")
def test_real_crystals(tmp_path):
    """Crystals of 80 elements: classes, edges through the cell, and a ranking of two sets."""
    sets = [
        StructureSet(name, [CRYSTALS / f"{name}-random-1k.xyz.gz"], most=25)
        for name in ("mptrj", "alexandria")
    ]
    checkpoint = save_checkpoint(tmp_path / "all.pt", type_map=list(ELEMENTS))
    model = load_checkpoint("random", checkpoint)
    assert all(s.cell is not None for s in sets[0].structures)
    edges = find_edges(sets[0], ["O-O"], Windows((2.4, 3.0), (3.2, 3.9)))
    seen = embed(model, sets[0], edges=edges)
    assert np.isfinite(seen.node).all()
    assert np.isfinite(seen.edge).all(axis=1).mean() > 0.9  # e_sel 40 cuts some dense crystals
    assert len(set(atom_classes(sets[0]).tolist())) > 40
    found = analyse_domains(model, sets[0], sets[1:], natoms=100)
    assert 0 < found.floor < found.ranked[0].distance


def test_crystals_together_are_as_one_by_one(backbone):
    """Molecules and crystals of two sizes, mixed; cells of their own, one of them left-handed."""
    rng = np.random.default_rng(3)
    every = []
    for number in range(6):
        one = bulk("C", "diamond", a=3.4 + 0.1 * number, cubic=number % 2 == 0)
        one.positions += 0.1 * rng.normal(size=one.positions.shape)
        every += [one, molecule("CH3OH" if number % 2 else "H2O")]
    turned = every[0].copy()
    turned.set_cell(turned.cell.array[[1, 0, 2]], scale_atoms=False)
    structures = [
        checked(a.numbers, a.positions, a.cell.array if a.pbc.all() else None, "x")
        for a in [*every, turned]
    ]
    mixed = StructureSet.of("mixed", structures)
    atoms = np.arange(mixed.natoms.sum())
    edges = find_edges(mixed, ["C-C"], WINDOWS)
    together = embed(backbone, mixed, layer_atoms=atoms, edges=edges)
    alone = embed(backbone, mixed, layer_atoms=atoms, edges=edges, batch_atoms=1)
    assert len(mixed.batches(backbone.type_map, atoms=1024)) == 4
    assert len(mixed.batches(backbone.type_map, atoms=1)) == len(mixed)
    for name, values in vars(together).items():
        np.testing.assert_allclose(values, getattr(alone, name), rtol=1e-4, atol=1e-6)
    first, last = mixed.starts[[0, -1]]
    np.testing.assert_allclose(
        together.node[last:], together.node[first : first + 8], rtol=1e-4, atol=1e-6
    )


def test_dpa4(tmp_path, molecules):
    """It gives nodes and layers, and no edges."""
    path = save_checkpoint(
        tmp_path / "m.pt",
        type="dpa4",
        descriptor=DPA4,
        fitting_net={"type": "dpa4_ener", "neuron": [8], "seed": 1},
    )
    model = load_checkpoint("m", path)
    seen = embed(model, molecules, layer_atoms=np.arange(4))
    assert seen.node.shape == (molecules.natoms.sum(), 8)
    assert seen.layers.shape == (2, 4, 8)
    assert np.isfinite(seen.pooled).all()
    assert seen.pooled.std(axis=1).min() > 0
    assert seen.edge_pooled.shape[1] == 0
    symbols, cosines = element_similarity(model)
    assert symbols == TYPE_MAP
    np.testing.assert_allclose(np.diag(cosines), 1.0, rtol=1e-6)
