"""Checkpoints of an interrupted run: which of them is whole."""

import json
import math
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import sort_checkpoints
from transformers.utils import logging

logger = logging.get_logger(__name__)

STATE_NAME = "trainer_state.json"


def checkpoint_defect(folder: str | Path, num_processes: int = 1) -> str | None:
    """Say what is missing or cut off in a checkpoint that Trainer wrote, or None if it is whole.

    Args:
        folder: A `checkpoint-<step>` folder.
        num_processes: processes of the run, each of which saves the state of its random generators.
    """
    folder = Path(folder)
    random_states = (
        ["rng_state.pth"] if num_processes == 1 else [f"rng_state_{rank}.pth" for rank in range(num_processes)]
    )
    for name in ("optimizer.pt", "scheduler.pt", *random_states):
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        # A cut-off zip archive has lost its directory, which stands at the end.
        if not zipfile.is_zipfile(path):
            return f"{name} is cut off"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        return "the weights are missing"
    for path in weights:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return f"{path.name} is cut off"
    for name in ("config.json", STATE_NAME):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return f"{name} is missing or cut off"
    if folder.name != f"checkpoint-{content.get('global_step')}":
        return f"{STATE_NAME} belongs to another step"
    return None


def find_last_checkpoint(output_dir: str | Path, num_processes: int = 1, delete_broken: bool = True) -> Path | None:
    """Return the last whole checkpoint of a run, and clear away broken ones after it.

    Args:
        output_dir: folder of the run.
        num_processes: processes of the run.
        delete_broken: whether this process deletes later, broken checkpoints, so that their age does not mislead
            Trainer's rotation. Exactly one process of a run should.

    Returns:
        `Path` or None if there is no whole checkpoint.
    """
    for checkpoint in map(Path, reversed(sort_checkpoints(str(output_dir)))):
        defect = checkpoint_defect(checkpoint, num_processes)
        if defect is None:
            return checkpoint
        logger.warning(f"Skipping the incomplete checkpoint {checkpoint}: {defect}.")
        if delete_broken:
            shutil.rmtree(checkpoint)
    return None


def training_had_finished(checkpoint: str | Path, arguments: TrainingArguments) -> bool:
    """Tell whether training stopped with this checkpoint, at the last step or early, and shall not be longer now."""
    state = _load_state(checkpoint)
    control = state.stateful_callbacks.get("TrainerControl", {})
    has_same_length = (
        state.max_steps == arguments.max_steps
        if arguments.max_steps > 0
        else state.num_train_epochs == math.ceil(arguments.num_train_epochs)
    )
    return has_same_length and bool(control.get("args", {}).get("should_training_stop", False))


def best_checkpoint_of(checkpoint: str | Path) -> Path | None:
    """Return the best checkpoint that a checkpoint refers to, in the same run folder; None if it refers to none.

    Raises:
        ValueError: the best one is gone.
    """
    best = _load_state(checkpoint).best_model_checkpoint
    if not best:
        return None
    candidate = Path(checkpoint).parent / Path(best).name
    check_best_checkpoint(candidate)
    return candidate


def check_best_checkpoint(folder: str | Path) -> None:
    """Check that the best checkpoint of a run is there: the last weights must not pass for its.

    Raises:
        ValueError: it has no weights.
    """
    if not any(Path(folder).glob("*.safetensors")):
        raise ValueError(
            f"`{folder}`, the best checkpoint of the run, is gone, and with it the weights to deliver: restore it, or "
            "train anew with --overwrite."
        )


def _load_state(checkpoint: str | Path) -> TrainerState:
    return TrainerState.load_from_json(str(Path(checkpoint) / STATE_NAME))
