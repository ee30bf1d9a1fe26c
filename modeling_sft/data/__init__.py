"""Data: benchmark readers, splits, PyTorch data sets, collators and metrics."""

from .batch_samplers import SortedStepBatchSampler, TokenBudgetBatchSampler
from .graph.collators import GraphCollator
from .graph.datasets import PreparedGraphs
from .graph.metrics import (
    link_ranks,
    macro_f1,
    mean_absolute_error,
    mean_average_precision,
    mean_reciprocal_rank,
    mean_roc_auc,
    root_mean_squared_error,
)
from .graph.readers import load_graph_dataset
from .graph.rows import graph_rows
from .metrics import classification_metrics, restricted_argmax, segmentation_metrics
from .point_cloud.collators import PointCloudCollator
from .point_cloud.datasets import PreparedPointClouds
from .point_cloud.readers import load_point_cloud_dataset
from .point_cloud.rows import point_cloud_rows
from .sequence.collators import SequenceCollator
from .sequence.datasets import PreparedSequences
from .sequence.masked_texts import ChunkedText, EpochMasks, FixedMasks, StreamedText, TokenMasking
from .sequence.readers import load_sequence_dataset
from .splits import stratified_indices, train_validation_split

__all__ = [
    "GraphCollator",
    "PreparedGraphs",
    "ChunkedText",
    "EpochMasks",
    "FixedMasks",
    "PointCloudCollator",
    "PreparedPointClouds",
    "PreparedSequences",
    "SequenceCollator",
    "SortedStepBatchSampler",
    "StreamedText",
    "TokenBudgetBatchSampler",
    "TokenMasking",
    "classification_metrics",
    "graph_rows",
    "link_ranks",
    "load_graph_dataset",
    "load_point_cloud_dataset",
    "load_sequence_dataset",
    "macro_f1",
    "mean_absolute_error",
    "mean_average_precision",
    "mean_reciprocal_rank",
    "mean_roc_auc",
    "point_cloud_rows",
    "restricted_argmax",
    "root_mean_squared_error",
    "segmentation_metrics",
    "stratified_indices",
    "train_validation_split",
]
