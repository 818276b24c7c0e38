"""What is asked of a descriptor, of every family that deepmd-kit has."""

import pytest

from deepmd_mft.backbones.families import OTHER, family_of_type, layer_of
from tests.backbones import factory
from tests.backbones.factory import TYPE_MAP, Question
from tests.helpers.descriptors import DPA1, DPA2, DPA2_THREE_BODY, DPA4, SE_E2_A, STATIC
from tests.helpers.dp import DESCRIPTOR

E_SEL = ("e_sel", "a_sel")
NSEL = ("repinit/nsel", "repformer/nsel")
THREE_BODY = ("repinit/nsel", "repinit/three_body_sel", "repformer/nsel")
QUESTIONS = {
    "dpa3": Question(DESCRIPTOR, E_SEL, nlayers=2, edge_list=0),
    "dpa3 static": Question(STATIC, E_SEL, nlayers=2, edge_list=0),
    "dpa2": Question(DPA2, NSEL, nlayers=2, edge_list=1),
    "dpa2 three body": Question(DPA2_THREE_BODY, THREE_BODY, nlayers=2, edge_list=2),
    "dpa1": Question(DPA1, ("sel",), edge_list=0),
    "se_atten": Question({**DPA1, "type": "se_atten"}, ("sel",), edge_list=0),
    "dpa4": Question(DPA4, ("sel",), nlayers=2),
    "se_e2_a": Question({**SE_E2_A, "sel": [10] * len(TYPE_MAP)}, ("sel",), types=False),
    "another": Question(
        {**SE_E2_A, "type": "se_e2_r", "sel": [10] * len(TYPE_MAP)}, ("sel",), types=False
    ),
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize(
    "answer",
    [
        factory.assert_family_is_found,
        factory.assert_neighbour_lists,
        factory.assert_layers,
        factory.assert_layer_of_parameters,
        factory.assert_type_vectors,
        factory.assert_edges,
        factory.assert_symmetries,
    ],
)
def test_descriptor(question, answer):
    answer(question)


def test_layers_of_other_parts_are_none_of_messages():
    for name in (
        "type_embedding.embedding.layers.0.matrix",
        "model.a.atomic_model.fitting_net.filter_layers.networks.0.layers.1.matrix",
        "model.a.atomic_model.descriptor.repflows.edge_embd.matrix",
    ):
        assert layer_of(name) is None


def test_a_type_that_is_not_known_and_lists_that_are_not_said():
    assert family_of_type("mace") is OTHER
    assert OTHER.neighbour_lists({"type": "mace", "r_max": 5.0}) == []
