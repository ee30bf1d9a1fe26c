"""Sampling Foundational Transformer (SFT) for Hugging Face Transformers.

Importing the package registers its models with the Auto classes.
"""

from typing import Any

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_sft import SFTConfig, SFTGraphConfig, SFTPointCloudConfig
from .encoder.outputs import SFTClassifierOutput, SFTModelOutput, SFTPreTrainingOutput, SFTQuestionAnsweringOutput
from .graph.modeling_sft_graph import (
    SFTForGraphClassification,
    SFTForLinkPrediction,
    SFTForNodeClassification,
    SFTGraphModel,
    SFTGraphPreTrainedModel,
)
from .graph.pipelines import GraphClassificationPipeline, GraphFeatureExtractionPipeline, NodeClassificationPipeline
from .graph.processing import SFTGraphProcessor
from .hub.auto import (
    AutoModelForGraphClassification,
    AutoModelForLinkPrediction,
    AutoModelForNodeClassification,
    AutoModelForPointCloudClassification,
    AutoModelForPointCloudSegmentation,
    AutoModelForSequencePairClassification,
)
from .point_cloud.augmentation import PointCloudAugmentation
from .point_cloud.files import load_point_cloud
from .point_cloud.modeling_sft_point_cloud import (
    SFTForPointCloudClassification,
    SFTForPointCloudSegmentation,
    SFTPointCloudModel,
    SFTPointCloudPreTrainedModel,
)
from .point_cloud.pipelines import (
    PointCloudClassificationPipeline,
    PointCloudFeatureExtractionPipeline,
    PointCloudSegmentationPipeline,
)
from .point_cloud.processing import SFTPointCloudProcessor
from .point_cloud.selectors import farthest_point_selector
from .sampling.sample import Sample
from .sampling.sampler import random_selector
from .sequence.feature_extraction import SFTSequenceFeatureExtractor
from .sequence.modeling_sft import (
    SFTForMaskedLM,
    SFTForPreTraining,
    SFTForQuestionAnswering,
    SFTForSequenceClassification,
    SFTForSequencePairClassification,
    SFTForTokenClassification,
    SFTModel,
    SFTSequencePreTrainedModel,
)
from .sequence.tokenization import byte_pair_tokenizer, byte_tokenizer, character_tokenizer, list_ops_tokenizer

__version__ = "0.1.0"

for _config_class, _processor_class in (
    (SFTConfig, SFTSequenceFeatureExtractor),
    (SFTGraphConfig, SFTGraphProcessor),
    (SFTPointCloudConfig, SFTPointCloudProcessor),
):
    AutoConfig.register(_config_class.model_type, _config_class, exist_ok=True)
    AutoFeatureExtractor.register(_config_class, _processor_class, exist_ok=True)
    if _config_class is not SFTConfig:
        AutoProcessor.register(_config_class, _processor_class, exist_ok=True)

_model_class: Any
for _auto_class, *_model_classes in (
    (AutoModel, SFTModel, SFTGraphModel, SFTPointCloudModel),
    (AutoModelForMaskedLM, SFTForMaskedLM),
    (AutoModelForPreTraining, SFTForPreTraining),
    (AutoModelForSequenceClassification, SFTForSequenceClassification),
    (AutoModelForTokenClassification, SFTForTokenClassification),
    (AutoModelForQuestionAnswering, SFTForQuestionAnswering),
    (AutoModelForSequencePairClassification, SFTForSequencePairClassification),
    (AutoModelForGraphClassification, SFTForGraphClassification),
    (AutoModelForNodeClassification, SFTForNodeClassification),
    (AutoModelForLinkPrediction, SFTForLinkPrediction),
    (AutoModelForPointCloudClassification, SFTForPointCloudClassification),
    (AutoModelForPointCloudSegmentation, SFTForPointCloudSegmentation),
):
    for _model_class in _model_classes:
        _auto_class.register(_model_class.config_class, _model_class, exist_ok=True)

for _pipeline_class, _auto_class in (
    (PointCloudClassificationPipeline, AutoModelForPointCloudClassification),
    (PointCloudSegmentationPipeline, AutoModelForPointCloudSegmentation),
    (PointCloudFeatureExtractionPipeline, AutoModel),
    (GraphClassificationPipeline, AutoModelForGraphClassification),
    (NodeClassificationPipeline, AutoModelForNodeClassification),
    (GraphFeatureExtractionPipeline, AutoModel),
):
    PIPELINE_REGISTRY.register_pipeline(_pipeline_class.task_name, _pipeline_class, pt_model=_auto_class)

__all__ = [
    "AutoModelForGraphClassification",
    "AutoModelForLinkPrediction",
    "AutoModelForNodeClassification",
    "AutoModelForPointCloudClassification",
    "AutoModelForPointCloudSegmentation",
    "AutoModelForSequencePairClassification",
    "GraphClassificationPipeline",
    "GraphFeatureExtractionPipeline",
    "NodeClassificationPipeline",
    "PointCloudAugmentation",
    "PointCloudClassificationPipeline",
    "PointCloudFeatureExtractionPipeline",
    "PointCloudSegmentationPipeline",
    "SFTClassifierOutput",
    "SFTConfig",
    "SFTForGraphClassification",
    "SFTForLinkPrediction",
    "SFTForMaskedLM",
    "SFTForNodeClassification",
    "SFTForPointCloudClassification",
    "SFTForPointCloudSegmentation",
    "SFTForPreTraining",
    "SFTForQuestionAnswering",
    "SFTForSequenceClassification",
    "SFTForSequencePairClassification",
    "SFTForTokenClassification",
    "SFTGraphConfig",
    "SFTGraphModel",
    "SFTGraphPreTrainedModel",
    "SFTGraphProcessor",
    "SFTModel",
    "SFTModelOutput",
    "SFTPointCloudConfig",
    "SFTPointCloudModel",
    "SFTPointCloudPreTrainedModel",
    "SFTPointCloudProcessor",
    "SFTPreTrainingOutput",
    "SFTQuestionAnsweringOutput",
    "SFTSequenceFeatureExtractor",
    "SFTSequencePreTrainedModel",
    "Sample",
    "byte_pair_tokenizer",
    "byte_tokenizer",
    "character_tokenizer",
    "farthest_point_selector",
    "list_ops_tokenizer",
    "load_point_cloud",
    "random_selector",
]
