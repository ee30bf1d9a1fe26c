"""Training and evaluation: recipes, tasks, an own Trainer, whole runs."""

from .callbacks import DatasetEpochCallback, SamplingNoiseCallback
from .evaluation import Evaluator, evaluate, format_report
from .recipe import EarlyStopping, ImportanceScorerSettings, Recipe, SamplingNoiseSchedule
from .repetition import format_summary, repeat
from .run import build_training_arguments, train
from .tasks import TASKS, Task, check_recipe, get_task, load_recipe, register_task
from .trainer import SFTTrainer, activation_checkpointing_arguments, is_scorer_parameter

__all__ = [
    "TASKS",
    "DatasetEpochCallback",
    "EarlyStopping",
    "Evaluator",
    "ImportanceScorerSettings",
    "Recipe",
    "SFTTrainer",
    "SamplingNoiseCallback",
    "SamplingNoiseSchedule",
    "Task",
    "activation_checkpointing_arguments",
    "build_training_arguments",
    "check_recipe",
    "evaluate",
    "format_report",
    "format_summary",
    "get_task",
    "is_scorer_parameter",
    "load_recipe",
    "register_task",
    "repeat",
    "train",
]
