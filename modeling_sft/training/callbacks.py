"""Trainer callbacks: annealing of the sampling noise, epoch numbers for augmentation, processor time, memory."""

import ctypes
import platform
import time
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from ..configuration_sft import SMALLEST_NOISE
from ..hub.optional import import_optional
from .recipe import SamplingNoiseSchedule


class SamplingNoiseCallback(TrainerCallback):
    """Anneal `sampling_noise` linearly, as a function of the step number alone, so that resuming is exact.

    Every checkpoint's configuration carries the noise of its own weights. When the best checkpoint is loaded at the
    end, its noise comes back with it.

    Args:
        initial: noise of the first step.
        schedule: final noise, and the fraction of the steps at which it is reached.
    """

    def __init__(self, initial: float, schedule: SamplingNoiseSchedule) -> None:
        self.initial = initial
        self.schedule = schedule

    def noise_at(self, step: int, max_steps: int) -> float:
        """Return the noise of the step with a zero-based number."""
        progress = min(step / max(self.schedule.until * max_steps, 1.0), 1.0)
        change = self.schedule.final - self.initial
        noise = self.schedule.final if progress == 1 else self.initial + change * progress
        # On its way to 0 it may become smaller than models accept.
        return noise if noise >= SMALLEST_NOISE else 0.0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Set the noise of the last step taken, for an evaluation before the first step."""
        self._set_noise(kwargs["model"], self.noise_at(max(state.global_step - 1, 0), state.max_steps))

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Set the noise of the step that begins."""
        self._set_noise(kwargs["model"], self.noise_at(state.global_step, state.max_steps))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Restore the noise of the best checkpoint, whose weights Trainer has just loaded."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            config, _ = PreTrainedConfig.get_config_dict(Path(state.best_model_checkpoint))
            self._set_noise(kwargs["model"], config["sampling_noise"])

    @staticmethod
    def _set_noise(model: Any, noise: float) -> None:
        unwrap = import_optional("accelerate.utils", "train").extract_model_from_parallel
        unwrap(model).set_sampling_noise(noise)


class DatasetEpochCallback(TrainerCallback):
    """Tell the training data which epoch begins, so that augmentation is a function of (seed, epoch, index).

    accelerate's data loader does this only where its batch sampler is neither sharded over processes nor skipping
    batches after a resume, so that augmentation would repeat in the first case and differ in the second.

    Args:
        dataset: the training data; `set_epoch` is called if it has that method.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Set the epoch of the data."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(int(state.epoch or 0))


class BestCheckpointCallback(TrainerCallback):
    """Let a resumed run know its best checkpoint where that lies now: Trainer forgets it if the run was moved.

    Args:
        best: the checkpoint; None if the run has none yet.
    """

    def __init__(self, best: Path | None) -> None:
        self.best = best

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Set the best checkpoint of the state that was just read."""
        state.best_model_checkpoint = None if self.best is None else str(self.best)


class ProcessorTimeCallback(TrainerCallback, ExportableState):
    """Count the processor time of a training, that of the runs before it was resumed included.

    Checkpoints carry the time until they were saved: work that an interruption lost is not counted.

    Args:
        earlier_seconds: processor time of earlier runs.
    """

    def __init__(self, earlier_seconds: float = 0.0) -> None:
        self.earlier_seconds = earlier_seconds
        self._start = time.process_time()

    @property
    def seconds(self) -> float:
        """Processor time of this process since training began, and of the earlier runs."""
        return self.earlier_seconds + time.process_time() - self._start

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the arguments from which resuming makes the callback anew."""
        return {"args": {"earlier_seconds": self.seconds}, "attributes": {}}

    @classmethod
    def seconds_of(cls, state: TrainerState) -> float | None:
        """The processor time until a state was saved; `None` if it was not counted."""
        saved = state.stateful_callbacks.get(cls.__name__)
        return None if saved is None else saved["args"]["earlier_seconds"]


class HeapTrimCallback(TrainerCallback):
    """Give freed memory back to the system now and then, where the C library is glibc; does nothing elsewhere.

    Batches of changing shapes fragment the heap, and a training on the CPU otherwise grows by gigabytes within hours.

    Args:
        steps: optimisation steps between two times; each evaluation counts as well.
    """

    def __init__(self, steps: int = 100) -> None:
        self.steps = steps
        self._malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if platform.system() == "Linux" else None

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Trim after every `steps` steps."""
        if state.global_step % self.steps == 0:
            self.trim()

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Trim after an evaluation, whose batches may be larger."""
        self.trim()

    def trim(self) -> None:
        """Give back what can be given back."""
        if self._malloc_trim is not None:
            self._malloc_trim(0)
