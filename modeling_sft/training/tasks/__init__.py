"""Tasks: what a recipe trains. Importing this package registers all of them."""

from .point_clouds import PointCloudClassificationTask, PointCloudSegmentationTask, RotatedRows
from .task import TASKS, Task, get_task, register_task, task_of_config

__all__ = [
    "PointCloudClassificationTask",
    "PointCloudSegmentationTask",
    "RotatedRows",
    "TASKS",
    "Task",
    "get_task",
    "register_task",
    "task_of_config",
]
