"""The heads beyond one scalar: known answers, symmetries, TorchScript, mistakes."""

import numpy as np
import pytest
import torch

from deepmd_mft.errors import UserError
from deepmd_mft.models.heads.dipole_norm import gives_rot_mat
from deepmd_mft.models.masses import masses_of
from tests.helpers.dp import DESCRIPTOR, TYPE_MAP
from tests.helpers.models import NETS, build_head, frame


def predict(model, coord, atype):
    with torch.no_grad():
        return model(coord, atype)


def molecule(coord, symbols):
    types = [TYPE_MAP.index(symbol) for symbol in symbols]
    return torch.tensor(coord, dtype=torch.float64).reshape(1, -1), torch.tensor([types])


def system(coords, atypes, **labels):
    """Pack frames of equal size as deepmd-kit samples a system for statistics."""
    atype = torch.cat(atypes)
    counts = torch.stack([(atype == i).sum(dim=1) for i in range(5)], dim=1)
    packed = {
        "coord": torch.cat(coords),
        "atype": atype,
        "box": None,
        "natoms": torch.cat([torch.full((len(atype), 2), atype.shape[1]), counts], dim=1),
    }
    for name, values in labels.items():
        packed[name] = torch.tensor(np.asarray(values, dtype=float)).reshape(len(atype), -1)
        packed[f"find_{name}"] = np.float32(1.0)
    return packed


def silence(model):
    """Set the output layer to zero, so that only the bias speaks."""
    layer = model.atomic_model.fitting_net.filter_layers.networks[0].layers[-1]
    layer.matrix.data.zero_()
    layer.bias.data.zero_()


# --- all heads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_scripted_model_gives_the_same_numbers(name, tmp_path):
    model = build_head(NETS[name])
    coord, atype, _ = frame()
    expected = predict(model, coord, atype)
    torch.jit.save(torch.jit.script(model), tmp_path / "model.pth")
    got = predict(torch.jit.load(tmp_path / "model.pth"), coord, atype)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", NETS)
def test_rotation_translation_permutation_and_padding(name, precision):
    descriptor = {**DESCRIPTOR, "precision": precision}
    model = build_head({**NETS[name], "precision": precision}, descriptor)
    coord, atype, _ = frame()
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    moved = coord.reshape(-1, 3) @ torch.tensor(rotation) + torch.tensor([3.0, -1.0, 2.0])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    padding = torch.tensor([[90.0, 0, 0], [0, 95.0, 0]])
    there = torch.cat([moved[order], padding]).reshape(1, -1)
    types = torch.cat([atype[:, order], torch.tensor([[-1, -1]])], dim=1)
    here, away = predict(model, coord, atype), predict(model, there, types)
    rtol = 1e-5 if precision == "float32" else 1e-9
    for key in model.property_names:
        size = here[key].abs().max()
        torch.testing.assert_close(away[key], here[key], rtol=rtol, atol=float(rtol * size))


@pytest.mark.parametrize("name", ["spatial_extent", "dipole_norm", "two_properties"])
def test_atomic_outputs_add_up(name):
    model = build_head(NETS[name])
    coord, atype, _ = frame()
    output = predict(model, coord, atype)
    for number, key in enumerate(model.property_names):
        total = output[f"atom_{key}"].sum(dim=1)
        if name == "two_properties" and model.is_intensive[number]:
            total = total / atype.shape[1]
        torch.testing.assert_close(total, output[key])


@pytest.mark.parametrize("name", ["spatial_extent", "dipole_norm"])
def test_a_periodic_cell_is_refused(name):
    coord, atype, box = frame(periodic=True)
    with pytest.raises(RuntimeError, match="defined for molecules"):
        build_head(NETS[name])(coord, atype, box)


@pytest.mark.parametrize("name", NETS)
def test_gradients_reach_every_parameter(name):
    model = build_head(NETS[name]).train()
    coord, atype, _ = frame()
    output = model(coord, atype)
    keys = [key for key in output if key != "mask" and not key.startswith("atom_")]
    sum(output[key].square().sum() for key in keys).backward()
    net = model.atomic_model.fitting_net
    for key, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key


# --- <R^2> --------------------------------------------------------------------------------------


def test_spatial_extent_of_point_charges():
    """Ten unit weights: the sum of squared distances from the centre of mass."""
    model = build_head(NETS["spatial_extent"])
    silence(model)
    model.atomic_model.out_bias.fill_(1.0)
    water = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]
    coord, atype = molecule(water, ["O", "H", "H"])
    masses = np.array(masses_of(["O", "H", "H"]))
    center = masses @ np.array(water) / masses.sum()
    expected = np.square(np.array(water) - center).sum()
    assert predict(model, coord, atype)["r2"].item() == pytest.approx(expected, rel=1e-12)


def test_spatial_extent_bias_recovers_electron_numbers():
    model = build_head(NETS["spatial_extent"])
    silence(model)
    frames = [frame(seed=seed) for seed in range(30)]
    truth = torch.tensor([1.0, 6.0, 7.0, 8.0, 9.0], dtype=torch.float64)
    coords, atypes = [f[0] for f in frames], [f[1] for f in frames]
    model.atomic_model.out_bias.copy_(truth.reshape(1, 5, 1))
    labels = predict(model, torch.cat(coords), torch.cat(atypes))["r2"]
    model.change_out_bias([system(coords, atypes, r2=labels)], "set-by-statistic")
    torch.testing.assert_close(model.atomic_model.out_bias.flatten(), truth, rtol=1e-2, atol=0)


def test_masses_are_those_of_ase():
    """Elements without a stable isotope are given the mass of one or another."""
    data = pytest.importorskip("ase.data")
    symbols = data.chemical_symbols[1:119]
    got, expected = np.array(masses_of(symbols)), data.atomic_masses[1:119]
    unstable = np.isin(symbols, ["Tc", "Pm"]) | (np.arange(1, 119) > 83)
    np.testing.assert_allclose(got[~unstable], expected[~unstable], rtol=5e-4)
    np.testing.assert_allclose(got[unstable], expected[unstable], rtol=0.02)


def test_a_type_that_is_no_element_is_refused():
    with pytest.raises(UserError, match="X1, which is no chemical symbol"):
        masses_of(["H", "X1"])


# --- mu -----------------------------------------------------------------------------------------


def charges_only(charges):
    """Return a model whose atoms have given charges by type."""
    model = build_head({**NETS["dipole_norm"], "vectors": False})
    silence(model)
    model.atomic_model.out_bias[0, :, 3] = torch.tensor(charges, dtype=torch.float64)
    return model


def test_dipole_of_point_charges():
    """Charges +q and -q at a distance d: mu = q d."""
    coord, atype = molecule([[0.0, 0.0, 0.0], [0.0, 0.0, 0.92]], ["H", "F"])
    model = charges_only([0.5, 0, 0, 0, -0.5])
    assert predict(model, coord, atype)["mu"].item() == pytest.approx(0.5 * 0.92, rel=1e-9)


def test_dipole_of_a_symmetric_molecule_is_zero():
    coord, atype = molecule([[0, 0, -1.16], [0, 0, 0], [0, 0, 1.16]], ["O", "C", "O"])
    mu = predict(build_head(NETS["dipole_norm"]), coord, atype)["mu"]
    assert mu.item() < 1e-6


def test_mirror_image_has_the_same_dipole():
    coord, atype, _ = frame()
    model = build_head(NETS["dipole_norm"])
    mirrored = (coord.reshape(-1, 3) * torch.tensor([1.0, 1.0, -1.0])).reshape(1, -1)
    torch.testing.assert_close(
        predict(model, mirrored, atype)["mu"], predict(model, coord, atype)["mu"]
    )


def test_independent_charges_and_vectors_of_their_scales_make_a_dipole_of_the_labels_size():
    model = build_head(NETS["dipole_norm"])
    frames = [frame(seed=seed) for seed in range(12)]
    coords, atypes = [f[0] for f in frames], [f[1] for f in frames]
    rng = np.random.default_rng(0)
    mu = rng.uniform(1.0, 5.0, size=(12, 1))
    model.change_out_bias([system(coords, atypes, mu=mu)], "set-by-statistic")
    vector, charge = model.atomic_model.out_std[0, 0, [0, 3]].tolist()
    masses = np.array(masses_of(TYPE_MAP))[torch.cat(atypes).numpy()]
    coord = torch.cat(coords).reshape(12, -1, 3).numpy()
    center = (masses[..., None] * coord).sum(axis=1) / masses.sum(axis=1)[:, None]
    shape = (4000, *coord.shape[:2], 1)
    away = coord - center[:, None]
    found = [
        (charge * rng.normal(size=shape) * away).sum(axis=2),
        (vector * rng.normal(size=(*shape[:3], 3)) / np.sqrt(3)).sum(axis=2),
    ]
    for dipoles in found:
        size = np.sqrt((dipoles**2).sum(axis=-1).mean())
        assert size == pytest.approx(np.sqrt((mu**2).mean()), rel=0.03)


def test_dipole_needs_a_part():
    with pytest.raises(UserError, match="vectors and charges are both off"):
        build_head({**NETS["dipole_norm"], "vectors": False, "charges": False})


SE_A = {"type": "se_e2_a", "rcut": 4.0, "rcut_smth": 3.0, "sel": [8] * 5, "neuron": [8, 16]}
SE_R = {**SE_A, "type": "se_e2_r"}
DPA1 = {**SE_A, "type": "dpa1", "sel": 30, "attn": 8, "attn_layer": 1, "axis_neuron": 4}
DPA2 = {
    "type": "dpa2",
    "repinit": {"rcut": 4.0, "rcut_smth": 3.0, "nsel": 30, "neuron": [8, 16], "axis_neuron": 4},
    "repformer": {
        "rcut": 3.0,
        "rcut_smth": 2.0,
        "nsel": 15,
        "nlayers": 1,
        "g1_dim": 8,
        "g2_dim": 4,
        "axis_neuron": 4,
        "update_g2_has_attn": False,
        "update_h2": False,
    },
}
DESCRIPTORS = {
    "se_e2_a": SE_A,
    "se_e2_r": SE_R,
    "se_e3": {**SE_A, "type": "se_e3"},
    "dpa1": DPA1,
    "dpa2": DPA2,
    "dpa3": DESCRIPTOR,
    "hybrid": {"type": "hybrid", "list": [SE_A, SE_R]},
}


def test_descriptor_without_vectors_is_named():
    with pytest.raises(UserError, match="rot_mat"):
        build_head(NETS["dipole_norm"], SE_R)
    build_head({**NETS["dipole_norm"], "vectors": False}, SE_R)


@pytest.mark.parametrize("descriptor", DESCRIPTORS)
@pytest.mark.parametrize("name", ["dipole_norm", "two_properties"])
def test_every_descriptor_with_every_kind_of_head(name, descriptor):
    net = dict(NETS[name])
    if name == "dipole_norm":
        net["vectors"] = gives_rot_mat(
            build_head(NETS["attention"], DESCRIPTORS[descriptor]).get_descriptor()
        )
    model = build_head(net, DESCRIPTORS[descriptor])
    coord, atype, _ = frame()
    output = model(coord, atype)
    scripted = torch.jit.script(model)(coord, atype)
    for key in model.property_names:
        torch.testing.assert_close(scripted[key], output[key])
    sum(output[key].sum() for key in model.property_names).backward()
    grads = [p.grad for p in model.get_descriptor().parameters() if p.grad is not None]
    assert any(grad.any() for grad in grads), "the head reaches the descriptor"
    assert all(torch.isfinite(grad).all() for grad in grads)


# --- classes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "key"), [("two_classes", "is_metal"), ("three_classes", "phase")])
def test_training_starts_from_the_class_frequencies(name, key):
    model = build_head(NETS[name])
    silence(model)
    labels = [0, 0, 0, 0, 0, 0, 1, 1]
    _, atype, _ = frame()
    coord, _, _ = frame()
    model.change_out_bias([system([coord] * 8, [atype] * 8, **{key: labels})], "set-by-statistic")
    logits = predict(model, coord, atype)[key][0]
    if name == "two_classes":
        assert torch.sigmoid(logits).item() == pytest.approx(3 / 10)
    else:
        np.testing.assert_allclose(torch.softmax(logits, 0), np.array([7, 3, 1]) / 11)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 2], "label 2 is no class"), ([0, 0.5], "label 0.5 is no"), ([1, 1], "all of one class")],
)
def test_labels_that_are_no_classes_are_refused(labels, message):
    coord, atype, _ = frame()
    model = build_head(NETS["two_classes"])
    with pytest.raises(UserError, match=message):
        model.change_out_bias(
            [system([coord] * 2, [atype] * 2, is_metal=labels)], "set-by-statistic"
        )


# --- several properties, variance ---------------------------------------------------------------


def test_each_property_has_its_own_bias_and_scale():
    model = build_head(NETS["two_properties"])
    frames = [frame(seed=seed) for seed in range(12)]
    coords, atypes = [f[0] for f in frames], [f[1] for f in frames]
    rng = np.random.default_rng(0)
    homo, alpha = rng.normal(size=(12, 1)), 100 + 10 * rng.normal(size=(12, 3))
    model.change_out_bias([system(coords, atypes, homo=homo, alpha=alpha)], "set-by-statistic")
    scales = [model.label_scale(name) for name in ("homo", "alpha")]
    assert scales[0][0] < 2
    assert (scales[1] > 0.05).all()
    silence(model)
    total = predict(model, torch.cat(coords), torch.cat(atypes))["alpha"]
    np.testing.assert_allclose(total.mean(dim=0), alpha.mean(axis=0), rtol=0.1)


def test_the_same_property_twice_is_refused():
    with pytest.raises(UserError, match="the same property twice"):
        build_head({**NETS["two_properties"], "property_name": ["homo", "homo"]})


def test_lists_of_different_length_are_refused():
    with pytest.raises(UserError, match="task_dim has 3 entries for 2 properties"):
        build_head({**NETS["two_properties"], "task_dim": [1, 3, 1]})


def test_variance_is_positive_and_grows_with_the_scale():
    model = build_head(NETS["variance"])
    coord, atype, _ = frame()
    before = predict(model, coord, atype)["alpha_variance"]
    model.atomic_model.out_std[0] *= 3.0
    after = predict(model, coord, atype)["alpha_variance"]
    assert (before > 0).all()
    torch.testing.assert_close(after, 9 * before)


@pytest.mark.parametrize("name", NETS)
def test_conversion_of_a_head_that_deepmd_lacks_is_refused(name):
    with pytest.raises(UserError, match="cannot be converted"):
        build_head(NETS[name]).serialize()


# --- what deepmd-kit is told of the outputs -----------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_the_output_definition_is_that_of_the_outputs(name):
    model = build_head(NETS[name])
    coord, atype, _ = frame()
    output = predict(model, coord, atype)
    defined = model.translated_output_def()
    assert defined.keys() == output.keys()
    for key, value in output.items():
        if key != "mask":
            shape = (1, 9) if defined[key].atomic else (1,)
            assert value.shape == (*shape, *defined[key].shape), key


# --- frames without atoms -----------------------------------------------------------------------

EMPTY = {
    "no atoms": (torch.zeros(1, 0).double(), torch.zeros(1, 0).long()),
    "padding": (torch.arange(9.0).double().reshape(1, 9), -torch.ones(1, 3).long()),
}
READOUTS = {
    readout: {**NETS["variance"], "readout": readout, "intensive": readout != "sum"}
    for readout in ("mean", "sum", "max", "attention")
}


@pytest.mark.parametrize("empty", EMPTY)
@pytest.mark.parametrize("name", [*NETS, *READOUTS])
def test_a_frame_without_atoms_has_the_value_zero(name, empty):
    model = build_head({**NETS, **READOUTS}[name])
    for runner in (model, torch.jit.script(model)):
        output = predict(runner, *EMPTY[empty])
        for key in model.property_names:
            torch.testing.assert_close(
                output[key], torch.zeros_like(output[key]), rtol=0, atol=1e-9
            )
            assert torch.isfinite(output.get(f"{key}_variance", output[key])).all()


@pytest.mark.parametrize("name", [*NETS, *READOUTS])
def test_an_empty_frame_in_a_batch_leaves_gradients_finite(name):
    model = build_head({**NETS, **READOUTS}[name]).train()
    coord, atype, _ = frame()
    coords, atypes = coord.repeat(2, 1), torch.cat([atype, -torch.ones_like(atype)])
    output = model(coords, atypes)
    alone = model(coord, atype)
    for key in model.property_names:
        torch.testing.assert_close(output[key][:1], alone[key])
    keys = [key for key in output if key != "mask" and not key.startswith("atom_")]
    sum(output[key].sum() for key in keys).backward()
    for parameter in model.atomic_model.fitting_net.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


# --- the C++ interface --------------------------------------------------------------------------


def lower(model, coord, atype, nlocal):
    """Call forward_lower with the atoms from `nlocal` on as ghosts."""
    nlist = -torch.ones(1, nlocal, sum(model.get_sel())).long()
    mapping = torch.arange(atype.shape[1])[None] % nlocal
    with torch.no_grad():
        return model.forward_lower(coord.reshape(1, -1, 3), atype, nlist, mapping)


@pytest.mark.parametrize("name", ["spatial_extent", "dipole_norm"])
def test_heads_of_molecules_refuse_ghost_atoms(name):
    model = build_head(NETS[name])
    coord, atype, _ = frame()
    assert torch.isfinite(lower(model, coord, atype, 9)[model.property_names[0]]).all()
    padded = torch.cat([atype[:, :6], -torch.ones(1, 3).long()], dim=1)
    lower(model, coord, padded, 6)
    for runner in (model, torch.jit.script(model)):
        with pytest.raises((RuntimeError, torch.jit.Error), match="defined for molecules"):
            lower(runner, coord, atype, 6)


def test_other_heads_take_ghost_atoms():
    coord, atype, _ = frame()
    assert torch.isfinite(lower(build_head(NETS["attention"]), coord, atype, 6)["gap"]).all()
