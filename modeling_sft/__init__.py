"""Sampling Foundational Transformer (SFT) for Hugging Face Transformers.

Importing the package registers its models with the Auto classes.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_sft import SFTConfig, SFTGraphConfig, SFTPointCloudConfig
from .encoder.outputs import SFTClassifierOutput, SFTModelOutput, SFTQuestionAnsweringOutput
from .graph.modeling_sft_graph import (
    SFTForGraphClassification,
    SFTForLinkPrediction,
    SFTForNodeClassification,
    SFTGraphModel,
    SFTGraphPreTrainedModel,
)
from .graph.pipelines import (
    GraphClassificationPipeline,
    GraphFeatureExtractionPipeline,
    NodeClassificationPipeline,
)
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
    SFTForQuestionAnswering,
    SFTForSequenceClassification,
    SFTForSequencePairClassification,
    SFTForTokenClassification,
    SFTModel,
    SFTSequencePreTrainedModel,
)
from .sequence.tokenization import byte_tokenizer, character_tokenizer, list_ops_tokenizer

__version__ = "0.1.0"

AutoConfig.register(SFTConfig.model_type, SFTConfig, exist_ok=True)
AutoModel.register(SFTConfig, SFTModel, exist_ok=True)
AutoFeatureExtractor.register(SFTConfig, SFTSequenceFeatureExtractor, exist_ok=True)
AutoModelForMaskedLM.register(SFTConfig, SFTForMaskedLM, exist_ok=True)
AutoModelForSequenceClassification.register(SFTConfig, SFTForSequenceClassification, exist_ok=True)
AutoModelForTokenClassification.register(SFTConfig, SFTForTokenClassification, exist_ok=True)
AutoModelForQuestionAnswering.register(SFTConfig, SFTForQuestionAnswering, exist_ok=True)
AutoModelForSequencePairClassification.register(SFTConfig, SFTForSequencePairClassification, exist_ok=True)

AutoConfig.register(SFTGraphConfig.model_type, SFTGraphConfig, exist_ok=True)
AutoModel.register(SFTGraphConfig, SFTGraphModel, exist_ok=True)
AutoModelForGraphClassification.register(SFTGraphConfig, SFTForGraphClassification, exist_ok=True)
AutoModelForNodeClassification.register(SFTGraphConfig, SFTForNodeClassification, exist_ok=True)
AutoModelForLinkPrediction.register(SFTGraphConfig, SFTForLinkPrediction, exist_ok=True)
AutoFeatureExtractor.register(SFTGraphConfig, SFTGraphProcessor, exist_ok=True)
AutoProcessor.register(SFTGraphConfig, SFTGraphProcessor, exist_ok=True)

AutoConfig.register(SFTPointCloudConfig.model_type, SFTPointCloudConfig, exist_ok=True)
AutoModel.register(SFTPointCloudConfig, SFTPointCloudModel, exist_ok=True)
AutoModelForPointCloudClassification.register(SFTPointCloudConfig, SFTForPointCloudClassification, exist_ok=True)
AutoModelForPointCloudSegmentation.register(SFTPointCloudConfig, SFTForPointCloudSegmentation, exist_ok=True)
AutoFeatureExtractor.register(SFTPointCloudConfig, SFTPointCloudProcessor, exist_ok=True)
AutoProcessor.register(SFTPointCloudConfig, SFTPointCloudProcessor, exist_ok=True)

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
    "SFTQuestionAnsweringOutput",
    "SFTSequenceFeatureExtractor",
    "SFTSequencePreTrainedModel",
    "Sample",
    "byte_tokenizer",
    "character_tokenizer",
    "farthest_point_selector",
    "list_ops_tokenizer",
    "load_point_cloud",
    "random_selector",
]
