"""Tasks: what a recipe trains. Importing this package registers all of them."""

from .graphs import (
    GraphClassificationTask,
    GraphMultiLabelClassificationTask,
    GraphRegressionTask,
    LinkPredictionTask,
    NodeClassificationTask,
)
from .point_clouds import PointCloudClassificationTask, PointCloudSegmentationTask, RotatedRows
from .sequences import (
    MaskedLanguageModelingTask,
    SequenceClassificationTask,
    SequencePairClassificationTask,
    SequenceRegressionTask,
)
from .task import TASKS, Task, get_task, register_baseline, register_task, task_of_config

__all__ = [
    "GraphClassificationTask",
    "GraphMultiLabelClassificationTask",
    "GraphRegressionTask",
    "LinkPredictionTask",
    "MaskedLanguageModelingTask",
    "NodeClassificationTask",
    "PointCloudClassificationTask",
    "PointCloudSegmentationTask",
    "RotatedRows",
    "SequenceClassificationTask",
    "SequencePairClassificationTask",
    "SequenceRegressionTask",
    "TASKS",
    "Task",
    "get_task",
    "register_baseline",
    "register_task",
    "task_of_config",
]
