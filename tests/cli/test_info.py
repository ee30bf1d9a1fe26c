"""`sft info`: what a saved model is, and how it did."""

import json

from modeling_sft import SFTForPointCloudClassification, SFTPointCloudProcessor
from saved_models import NAMES, saved


def test_info(run, tmp_path):
    processor = SFTPointCloudProcessor()
    name = "test-sft-point-cloud"
    model = saved(tmp_path, SFTForPointCloudClassification, name, processor, num_sampled_tokens_range=[3, 9])
    described = json.loads(run("info", tmp_path, "--json"))
    assert described["class"] == "SFTForPointCloudClassification" and described["modality"] == "point_cloud"
    assert described["num_parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert described["num_sampled_tokens"] == 6 and described["labels"] == list(NAMES.values())
    assert described["evaluation"] is None
    report = {"model": "m", "task": "point-cloud-classification", "dataset": "digits", "split": "test"}
    report |= {"num_examples": 9, "num_parameters": 5, "num_sampled_tokens": 6}
    report["results"] = {"none": {"accuracy": 0.4321}}
    (tmp_path / "evaluation.json").write_text(json.dumps(report))
    text = run("info", tmp_path)
    for part in (f"{described['num_parameters']:,}", "6 (trained with 3 to 9)", "3: good, bad, ugly", "43.21"):
        assert part in text
    assert json.loads(run("info", tmp_path, "--json"))["evaluation"] == report
    (tmp_path / "evaluation.json").write_text("{")
    assert "evaluation.json` is damaged" in run("info", tmp_path)
