"""Several processes: data-parallel training and sharded models equal one process with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ecosystem.cases import KINDS, make_case, make_case_with_missing_labels, weights
from ecosystem.processes import STEP
from modeling_sft.training.trainer import SFTTrainer
from paths import ROOT

pytest.importorskip("accelerate")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    launch = "-m torch.distributed.run --standalone --nproc_per_node 2 -m ecosystem.processes"
    command = [sys.executable, *launch.split(), str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]

    for kind in KINDS:
        case = make_case(kind, torch.float64, per_token=True)
        start = weights(case.model)
        case.model(**case.collate(case.rows)).loss.backward()
        gradients = {name: parameter.grad for name, parameter in case.model.named_parameters()}
        own, sharded = torch.load(tmp_path / f"{kind}-sharded.pt")
        torch.testing.assert_close(sharded, gradients, atol=1e-12, rtol=0)
        assert own < 0.6 * sum(parameter.numel() for parameter in case.model.parameters())

        case.model.zero_grad()
        case.trainer(tmp_path, **STEP).train()
        parallel = torch.load(tmp_path / f"{kind}-trained.pt")
        torch.testing.assert_close(parallel, weights(case.model), atol=1e-12, rtol=0)
        assert any((parallel[name] - start[name]).abs().max() > 1e-2 for name in start)

    case = make_case_with_missing_labels("sequence", "regression")
    case.trainer(tmp_path, trainer_class=SFTTrainer, **STEP).train()
    torch.testing.assert_close(torch.load(tmp_path / "missing-trained.pt"), weights(case.model), atol=1e-9, rtol=1e-9)
