"""Data: benchmark readers, splits, PyTorch data sets, collators and metrics."""

from .collators import PointCloudCollator
from .datasets import PreparedPointClouds
from .metrics import classification_metrics, restricted_argmax, segmentation_metrics
from .point_clouds import load_point_cloud_dataset, point_cloud_rows
from .splits import stratified_indices, train_validation_split

__all__ = [
    "PointCloudCollator",
    "PreparedPointClouds",
    "classification_metrics",
    "load_point_cloud_dataset",
    "point_cloud_rows",
    "restricted_argmax",
    "segmentation_metrics",
    "stratified_indices",
    "train_validation_split",
]
