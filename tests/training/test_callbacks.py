import json
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerState

from modeling_sft import SFTForPointCloudClassification
from modeling_sft.training import DatasetEpochCallback, SamplingNoiseCallback, SamplingNoiseSchedule, train
from modeling_sft.training.callbacks import HeapTrimCallback
from modeling_sft.training.tasks.point_clouds import PointCloudClassificationTask
from tiny_recipes import tiny_recipe


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (SamplingNoiseSchedule(final=0.0, until=1.0), [1.0, 0.75, 0.5, 0.25]),
        (SamplingNoiseSchedule(final=0.0, until=0.5), [1.0, 0.5, 0.0, 0.0]),
        (SamplingNoiseSchedule(final=2.0, until=0.5), [1.0, 1.5, 2.0, 2.0]),
        (SamplingNoiseSchedule(final=0.25, until=0.01), [1.0, 0.25, 0.25, 0.25]),
    ],
)
def test_noise_is_linear_in_the_step(schedule, expected):
    callback = SamplingNoiseCallback(1.0, schedule)
    assert [callback.noise_at(step, 4) for step in range(4)] == pytest.approx(expected)


def test_annealed_noise_reaches_the_final_value_exactly():
    callback = SamplingNoiseCallback(0.3, SamplingNoiseSchedule(final=0.1, until=0.7))
    assert callback.noise_at(700, 1000) == 0.1
    assert callback.noise_at(999, 1000) == 0.1


def test_noise_on_its_way_to_zero_is_never_smaller_than_models_accept():
    callback = SamplingNoiseCallback(1e-8, SamplingNoiseSchedule(final=0.0))
    noises = [callback.noise_at(step, 100) for step in range(101)]
    assert noises[0] == 1e-8 and noises[-1] == 0
    assert all(noise == 0 or noise >= 1e-9 for noise in noises)


class FakeModel(torch.nn.Module):
    noise = None

    def set_sampling_noise(self, value):
        self.noise = value


def test_noise_depends_on_the_global_step_alone():
    model, callback = FakeModel(), SamplingNoiseCallback(1.0, SamplingNoiseSchedule(final=0.0))
    state = TrainerState(global_step=7, max_steps=10)
    callback.on_step_begin(None, state, None, model=model)
    assert model.noise == pytest.approx(0.3)
    # An evaluation before the first step of a resumed run sees the noise of the last step taken.
    callback.on_train_begin(None, state, None, model=model)
    assert model.noise == pytest.approx(0.4)


def test_checkpoints_carry_their_noise_and_the_best_one_brings_it_back(tmp_path, monkeypatch):
    accuracies = iter([0.1, 0.9, 0.2, 0.9])
    monkeypatch.setattr(
        PointCloudClassificationTask,
        "compute_metrics",
        lambda self, evaluation, config: {"accuracy": next(accuracies)},
    )
    train(tiny_recipe("sampling_noise_schedule.final=0", "training.save_total_limit=null"), tmp_path / "run")
    noises = [
        json.loads((tmp_path / "run" / f"checkpoint-{step}" / "config.json").read_text())["sampling_noise"]
        for step in (2, 4, 6)
    ]
    assert noises == pytest.approx([0.5 * (1 - step / 6) for step in (1, 3, 5)])
    saved = SFTForPointCloudClassification.from_pretrained(tmp_path / "run")
    assert saved.config.sampling_noise == pytest.approx(noises[1])


def test_dataset_learns_the_epoch():
    dataset = SimpleNamespace(set_epoch=lambda epoch: epochs.append(epoch))
    epochs: list[int] = []
    for epoch in (None, 0.0, 1.0, 3.4):
        DatasetEpochCallback(dataset).on_epoch_begin(None, TrainerState(epoch=epoch), None)
    assert epochs == [0, 0, 1, 3]
    DatasetEpochCallback([]).on_epoch_begin(None, TrainerState(epoch=1.0), None)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_goes_back_to_the_system():
    def resident() -> int:
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024

    # Below the size that glibc maps by itself; every eighth block stays, so the heap has holes.
    blocks = [torch.ones(16_000) for _ in range(4_000)]
    del blocks[1::8], blocks[1::7], blocks[1::6], blocks[1::5], blocks[1::4], blocks[1::3], blocks[1::2]
    before = resident()
    callback = HeapTrimCallback(steps=100)
    arguments = {"args": None, "control": None}
    callback.on_step_end(state=SimpleNamespace(global_step=99), **arguments)
    assert before - resident() < 20
    callback.on_step_end(state=SimpleNamespace(global_step=200), **arguments)
    assert before - resident() > 100
    del blocks
    before = resident()
    callback.on_evaluate(state=SimpleNamespace(global_step=201), **arguments)
    assert before >= resident()
