import pytest
import torch

from benchmark_cases import Scaled, case, inputs, workload
from lab.benchmarks.measure import Step, Timing, describe_failure, seconds_of, time_in_turn


def step(mode="inference", behaviour="", **options):
    return Step(case(behaviour, **options), workload(), mode, inputs(workload()))


def test_inference_runs_without_a_graph_and_training_drops_its_gradients():
    for mode in ("inference", "training"):
        made = step(mode)
        (output,) = made()
        assert made.module.training == (mode == "training")
        assert torch.equal(output, 3 * made.inputs["states"]) and not output.requires_grad
        assert made.module.weight.grad is None
    assert made.num_parameters() == 1


def test_training_goes_back_through_every_output_with_its_cotangent():
    made = step("training")
    seen = []
    made.module.weight.register_hook(seen.append)
    made()
    assert torch.allclose(seen[0], (made.inputs["states"] * made.cotangents[0]).sum())


def test_weights_and_cotangents_depend_on_the_seed_alone():
    def made(seed):
        changed = workload(seed=seed)
        return Step(case(), changed, "training", inputs(changed))

    assert torch.equal(made(1).cotangents[0], made(1).cotangents[0])
    assert not torch.equal(made(1).cotangents[0], made(2).cotangents[0])


@pytest.mark.parametrize(("behaviour", "words"), [("crop", "expected"), ("nan", "not finite")])
def test_wrong_outputs_are_noticed(behaviour, words):
    with pytest.raises(ValueError, match=words):
        step(behaviour=behaviour).checked()


def test_cases_take_turns_and_a_failing_one_leaves():
    steps = {"a": step(), "b": step(behaviour="raise"), "c": step("training")}
    timings, failures, order = {}, {}, []
    time_in_turn(steps, 3, 0.0, timings, failures, order.append)
    assert order == ["a", "b", "c"] + ["a", "c"] * 3
    assert failures == {"b": "failed: RuntimeError: no luck"}
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 3, "c": 3}


def test_short_passes_are_repeated():
    timings: dict[str, Timing] = {}
    made = step()
    time_in_turn({"a": made}, 2, 0.01, timings, {})
    assert timings["a"].repeats > 1
    # Warmed up twice.
    assert made.module.calls == 2 + 2 * timings["a"].repeats
    assert all(0 < seconds < 0.01 for seconds in timings["a"].seconds)


def test_an_interruption_keeps_what_was_timed():
    timings: dict[str, Timing] = {}
    with pytest.raises(KeyboardInterrupt):
        time_in_turn({"a": step(), "b": step(behaviour="interrupt", after=4)}, 9, 0.0, timings, {})
    assert len(timings["a"].seconds) == 3 and len(timings["b"].seconds) == 2


def test_seconds_are_those_of_the_processor():
    made = Scaled(workload(), "sleep", seconds=0.2, above=0)
    assert seconds_of(lambda: made(torch.ones(1, 3, 2)), 1, "cpu") < 0.1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (ImportError("x"), "failed: ImportError: x"),
    ],
)
def test_failures_are_described_in_one_line(error, status):
    assert describe_failure(error) == status
