"""Every preset makes a model that answers; changes, names and descriptions."""

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from modeling_sft import (
    SFTForGraphClassification,
    SFTForPointCloudClassification,
    SFTForSequenceClassification,
    SFTPointCloudConfig,
    SFTPointCloudProcessor,
)
from modeling_sft.graph.molecules import ATOM_FEATURE_SIZES, BOND_FEATURE_SIZES
from modeling_sft.presets import PRESETS, preset
from modeling_sft.training import Recipe
from paths import ROOT

HEADS = {
    "sequence": SFTForSequenceClassification,
    "point_cloud": SFTForPointCloudClassification,
    "graph": SFTForGraphClassification,
}


def inputs_of(modality):
    if modality == "sequence":
        return {"input_ids": torch.randint(4, 260, (2, 41), generator=torch.Generator().manual_seed(0))}
    if modality == "point_cloud":
        rng = np.random.default_rng(0)
        return dict(SFTPointCloudProcessor()([rng.normal(size=(41, 3)), rng.normal(size=(23, 3))]))
    ring = torch.arange(41)
    return {
        "node_features": torch.stack([ring % size for size in ATOM_FEATURE_SIZES], dim=-1)[None],
        "edge_index": torch.stack([ring, (ring + 1) % 41])[None],
        "edge_features": torch.stack([ring % size for size in BOND_FEATURE_SIZES], dim=-1)[None],
    }


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_runs(name):
    config = preset(name, num_labels=3)
    assert type(config).from_dict(config.to_dict()).to_dict() == config.to_dict()
    torch.manual_seed(0)
    model = HEADS[config.modality](config).eval()
    inputs = inputs_of(config.modality)
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.shape == (len(next(iter(inputs.values()))), 3)
    assert logits.isfinite().all()
    assert name.startswith(("sft-", "samsa-", "test-"))
    assert name.endswith(config.modality.replace("_", "-"))


def test_there_are_all_sizes_of_all_inputs_with_distinct_descriptions():
    kinds = ("sequence", "point-cloud", "graph")
    families = [f"{family}-{size}" for family in ("sft", "samsa") for size in ("tiny", "small", "base")]
    assert set(PRESETS) == {f"{family}-{kind}" for family in (*families, "test-sft", "test-samsa") for kind in kinds}
    descriptions = [entry.description for entry in PRESETS.values()]
    assert len(set(descriptions)) == len(descriptions) and not any("\n" in text for text in descriptions)


def test_sizes_grow():
    for kind in ("sequence", "point-cloud", "graph"):
        sizes = []
        for size in ("tiny", "small", "base"):
            config = preset(f"sft-{size}-{kind}")
            with torch.device("meta"):
                model = HEADS[config.modality](config)
            sizes.append(sum(parameter.numel() for parameter in model.parameters()))
            assert f"width {config.hidden_size}" in PRESETS[f"sft-{size}-{kind}"].description
            assert f"K = {config.num_sampled_tokens}" in PRESETS[f"sft-{size}-{kind}"].description
        assert sizes == sorted(sizes) and sizes[0] < 150_000 < 3_000_000 < sizes[2]


def test_the_predecessor_differs_in_its_choices():
    config = preset("samsa-small-point-cloud")
    assert (config.sampling_scope, config.attention_score, config.attention_probability) == ("head", "dot", "softmax")
    assert (config.norm_type, config.norm_position) == ("rms", "pre") and config.num_extra_tokens > 0
    assert not (config.attention_leak or config.relation)


def test_the_recipe_of_the_predecessor_trains_its_preset():
    recipe = Recipe.from_yaml(ROOT / "configuration" / "samsa-digits" / "sft.yaml").to_dict()
    of_the_data = ("num_point_features", "use_normals", "num_neighbors", "local_mixing_size", "num_sampled_tokens")
    changes = {name: recipe["model"][name] for name in of_the_data}
    assert SFTPointCloudConfig(**recipe["model"]).to_dict() == preset("samsa-tiny-point-cloud", **changes).to_dict()


def test_changes_replace_fields_and_are_checked():
    config = preset("sft-tiny-graph", num_labels=7, hidden_size=32, node_vocab_sizes=[3])
    assert (config.num_labels, config.hidden_size, config.node_vocab_sizes) == (7, 32, [3])
    with pytest.raises(ValueError, match="did you mean `hidden_size`"):
        preset("sft-tiny-graph", hidden_sise=8)
    with pytest.raises(StrictDataclassError, match="`hidden_size` is 33"):
        preset("sft-tiny-graph", hidden_size=33)
    preset("sft-tiny-graph").node_vocab_sizes.append(9)
    assert preset("sft-tiny-graph").node_vocab_sizes == list(ATOM_FEATURE_SIZES)


def test_an_unknown_name_gets_the_closest():
    with pytest.raises(ValueError, match="did you mean 'sft-small-point-cloud'"):
        preset("sft-smal-point-cloud")
    with pytest.raises(ValueError, match="the names are .*sft-base-graph"):
        preset("?")
