"""Data: benchmark readers, splits, PyTorch data sets, collators and metrics."""

from .masked_text_datasets import ChunkedText, EpochMasks, FixedMasks, StreamedText
from .metrics import classification_metrics, restricted_argmax, segmentation_metrics
from .point_cloud_collators import PointCloudCollator
from .point_cloud_datasets import PreparedPointClouds
from .point_clouds import load_point_cloud_dataset, point_cloud_rows
from .sequence_collators import SequenceCollator
from .sequence_datasets import PreparedSequences
from .sequences import load_sequence_dataset
from .splits import stratified_indices, train_validation_split

__all__ = [
    "ChunkedText",
    "EpochMasks",
    "FixedMasks",
    "PointCloudCollator",
    "PreparedPointClouds",
    "PreparedSequences",
    "SequenceCollator",
    "StreamedText",
    "classification_metrics",
    "load_point_cloud_dataset",
    "load_sequence_dataset",
    "point_cloud_rows",
    "restricted_argmax",
    "segmentation_metrics",
    "stratified_indices",
    "train_validation_split",
]
