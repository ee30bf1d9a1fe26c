"""PEFT: LoRA adapters train, are saved and loaded, and are merged into a model that needs no PEFT."""

from pathlib import Path

import pytest
import torch

from ecosystem.cases import KINDS, losses, make_case, weights

peft = pytest.importorskip("peft")

LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize("kind", KINDS)
def test_lora_trains_saves_and_merges(kind: str, tmp_path: Path) -> None:
    case = make_case(kind)
    before, frozen = case.logits(), weights(case.model.sft)
    settings = peft.LoraConfig(
        r=4, lora_alpha=16, target_modules=LINEAR_LAYERS, modules_to_save=["classifier", "sampler"]
    )
    model = peft.get_peft_model(case.model, settings)
    trainer = case.trainer(tmp_path, model, max_steps=12)
    trainer.train()
    assert losses(trainer)[-1] < 0.6 * losses(trainer)[0]
    expected = case.logits(model)
    assert not torch.allclose(expected, before, atol=0.1)

    model.save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 30_000
    again = peft.PeftModel.from_pretrained(make_case(kind).model, tmp_path / "adapter")
    torch.testing.assert_close(case.logits(again), expected)
    # All that LoRA does not train is as it was.
    with again.disable_adapter():
        torch.testing.assert_close(case.logits(again), before)

    merged = model.merge_and_unload()
    assert type(merged) is type(case.model)
    torch.testing.assert_close(case.logits(merged), expected, atol=1e-5, rtol=1e-4)
    changed = {name for name, value in weights(merged.sft).items() if not torch.equal(value, frozen[name])}
    assert changed and all(name.split(".")[-2] in [*LINEAR_LAYERS, "sampler"] for name in changed)
    merged.save_pretrained(tmp_path / "merged")
    loaded = type(merged).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(case.logits(loaded), case.logits(merged))
