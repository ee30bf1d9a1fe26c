"""Weights in several files, placed by accelerate in memory and on disk, give the same answers."""

import json
from pathlib import Path

import pytest
import torch

from ecosystem.cases import KINDS, make_case

pytest.importorskip("accelerate")


# Extra tokens belong to the sampler and are read by the attention, which must find them wherever they are kept.
@pytest.mark.parametrize("kind", KINDS)
def test_shards_and_device_maps_give_the_same_answers(kind: str, tmp_path: Path) -> None:
    case = make_case(kind, num_extra_tokens=2)
    expected = case.logits()
    case.model.save_pretrained(tmp_path, max_shard_size="10KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == len(list(tmp_path.glob("*.safetensors"))) > 2

    placed = type(case.model).from_pretrained(tmp_path, device_map="auto")
    assert {parameter.device.type for parameter in placed.parameters()} == {"cpu"}
    torch.testing.assert_close(case.logits(placed), expected)

    offloaded = type(case.model).from_pretrained(
        tmp_path, device_map="auto", max_memory={"cpu": 20_000}, offload_folder=tmp_path / "offloaded"
    )
    assert "disk" in offloaded.hf_device_map.values()
    assert not any(name.startswith("sft.encoder.layers.0.") for name in offloaded.hf_device_map)
    torch.testing.assert_close(case.logits(offloaded), expected)
