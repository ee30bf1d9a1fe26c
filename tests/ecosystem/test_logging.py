"""TensorBoard's event files hold what training logged."""

from pathlib import Path

import pytest

from modeling_sft.training import train
from tiny_recipes import tiny_recipe

accumulation = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_event_files_hold_the_log(tmp_path: Path) -> None:
    settings = ("training.report_to=tensorboard", "importance_scorer={max_grad_norm: 1}", "training.max_steps=4")
    log = train(tiny_recipe(*settings), tmp_path)
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents*")}
    events = accumulation.EventAccumulator(str(folder)).Reload()
    for name in ("loss", "grad_norm", "scorer_grad_norm", "learning_rate"):
        logged = {entry["step"]: entry[name] for entry in log["log_history"] if name in entry}
        written = {event.step: event.value for event in events.Scalars(f"train/{name}")}
        assert written == pytest.approx(logged) and list(written) == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("eval/accuracy")][:2] == [2, 4]
