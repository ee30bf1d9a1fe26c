"""The pipelines that embed inputs: those of point clouds and graphs, and one of the same kind for texts."""

from typing import Any

from torch import Tensor

from ..graph.pipelines import GraphFeatureExtractionPipeline
from ..hub.pipelines import FeatureExtractionPipeline
from ..point_cloud.pipelines import PointCloudFeatureExtractionPipeline


class TextEmbeddingPipeline(FeatureExtractionPipeline):
    """Embeds texts by the backbone of a model of sequences; long ones are truncated as the tokenizer says.

    Transformers' own `feature-extraction` gives the states of all tokens, and does not pool them.

    Args:
        model: a model of sequences with `vocab_size`.
        tokenizer: the model's tokenizer.
        kwargs: as everywhere in Transformers.
    """

    task_name = "text-embedding"
    input_name = "input_ids"
    processor_name = "tokenizer"

    def __init__(self, model: Any, tokenizer: Any, **kwargs: Any) -> None:
        super().__init__(model, feature_extractor=tokenizer, **kwargs)

    def _prepare(self, inputs: str) -> dict[str, Any]:
        return {"text": inputs}

    def _batch(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        texts = [item["text"] for item in items]
        tokenizer: Any = self.feature_extractor
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(self.device)
        for text, length in zip(texts, batch["attention_mask"].sum(1).tolist(), strict=True):
            if length == 0:
                raise ValueError(f"The text {text!r} has no token that the tokenizer knows.")
        return {name: batch[name] for name in ("input_ids", "attention_mask")}


PIPELINE_OF_MODALITY: dict[str, type[FeatureExtractionPipeline]] = {
    "point_cloud": PointCloudFeatureExtractionPipeline,
    "graph": GraphFeatureExtractionPipeline,
    "sequence": TextEmbeddingPipeline,
}
