"""Sampling Foundational Transformer (SFT) for Hugging Face Transformers.

Importing the package registers its models with the Auto classes.
"""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor

from .augmentation_point_cloud_sft import PointCloudAugmentation
from .auto_sft import AutoModelForPointCloudClassification, AutoModelForPointCloudSegmentation
from .configuration_sft import SFTPointCloudConfig
from .files_point_cloud_sft import load_point_cloud
from .modeling_sft_point_cloud import (
    SFTForPointCloudClassification,
    SFTForPointCloudSegmentation,
    SFTPointCloudModel,
    SFTPointCloudPreTrainedModel,
)
from .outputs_sft import SFTClassifierOutput, SFTModelOutput
from .processing_point_cloud_sft import SFTPointCloudProcessor
from .sampling_sft import Sample, farthest_point_selector, random_selector

__version__ = "0.1.0"

AutoConfig.register(SFTPointCloudConfig.model_type, SFTPointCloudConfig, exist_ok=True)
AutoModel.register(SFTPointCloudConfig, SFTPointCloudModel, exist_ok=True)
AutoModelForPointCloudClassification.register(SFTPointCloudConfig, SFTForPointCloudClassification, exist_ok=True)
AutoModelForPointCloudSegmentation.register(SFTPointCloudConfig, SFTForPointCloudSegmentation, exist_ok=True)
AutoFeatureExtractor.register(SFTPointCloudConfig, SFTPointCloudProcessor, exist_ok=True)
AutoProcessor.register(SFTPointCloudConfig, SFTPointCloudProcessor, exist_ok=True)

__all__ = [
    "AutoModelForPointCloudClassification",
    "AutoModelForPointCloudSegmentation",
    "PointCloudAugmentation",
    "SFTClassifierOutput",
    "SFTForPointCloudClassification",
    "SFTForPointCloudSegmentation",
    "SFTModelOutput",
    "SFTPointCloudConfig",
    "SFTPointCloudModel",
    "SFTPointCloudPreTrainedModel",
    "SFTPointCloudProcessor",
    "Sample",
    "farthest_point_selector",
    "load_point_cloud",
    "random_selector",
]
