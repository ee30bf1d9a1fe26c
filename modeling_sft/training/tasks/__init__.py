"""Tasks: what a recipe trains. Importing this package registers all of them."""

from . import graphs, point_clouds, sequences
from .task import TASKS, Task, check_recipe, get_task, load_recipe, register_baseline, register_task, task_of_config

__all__ = [
    "TASKS",
    "Task",
    "check_recipe",
    "get_task",
    "graphs",
    "load_recipe",
    "point_clouds",
    "register_baseline",
    "register_task",
    "sequences",
    "task_of_config",
]
