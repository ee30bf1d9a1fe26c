"""torchao: int8 weights give nearly the same answers, in place and through from_pretrained, and are saved."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import TorchAoConfig

from ecosystem.cases import KINDS, make_case

quantization = pytest.importorskip("torchao.quantization")


@pytest.mark.parametrize("kind", KINDS)
def test_int8_weights_are_near_and_are_saved(kind: str, tmp_path: Path) -> None:
    # All tokens are taken: of a sample, rounded importance may change which tokens it holds.
    case = make_case(kind, hidden_size=48, intermediate_size=64, num_sampled_tokens=64)
    expected = case.logits()
    in_place = copy.deepcopy(case.model)
    quantization.quantize_(in_place, quantization.Int8WeightOnlyConfig())
    answer = case.logits(in_place)
    assert not torch.equal(answer, expected)
    assert (answer - expected).norm() < 0.05 * expected.norm()

    case.model.save_pretrained(tmp_path / "float")
    settings = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    quantized = type(case.model).from_pretrained(tmp_path / "float", quantization_config=settings)
    linear = [module for module in quantized.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linear) > 10 and all(type(module.weight).__name__ == "Int8Tensor" for module in linear)
    torch.testing.assert_close(case.logits(quantized), answer)

    quantized.save_pretrained(tmp_path / "int8")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("int8", "float")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = type(case.model).from_pretrained(tmp_path / "int8")
    torch.testing.assert_close(case.logits(loaded), case.logits(quantized))
