"""Models of other authors that recipes can train instead of SFT; importing this package registers their names."""

from modeling_sft.training.tasks import register_baseline

from .graphs import GINEForGraphClassification, GPSForGraphClassification
from .point_clouds import DGCNNForPointCloudClassification, PointNetForPointCloudClassification
from .sequences import (
    BertBaselineForSequenceClassification,
    BertBaselineForSequencePairClassification,
    NystromformerBaselineForSequenceClassification,
    NystromformerBaselineForSequencePairClassification,
)

GRAPH_TASKS = ("graph-classification", "graph-multi-label-classification", "graph-regression")
SEQUENCE_TASKS = ("sequence-classification", "sequence-regression")

register_baseline("gine", GINEForGraphClassification, *GRAPH_TASKS)
register_baseline("gps", GPSForGraphClassification, *GRAPH_TASKS)
register_baseline("pointnet", PointNetForPointCloudClassification, "point-cloud-classification")
register_baseline("dgcnn", DGCNNForPointCloudClassification, "point-cloud-classification")
register_baseline("bert", BertBaselineForSequenceClassification, *SEQUENCE_TASKS)
register_baseline("bert", BertBaselineForSequencePairClassification, "sequence-pair-classification")
register_baseline("nystromformer", NystromformerBaselineForSequenceClassification, *SEQUENCE_TASKS)
register_baseline("nystromformer", NystromformerBaselineForSequencePairClassification, "sequence-pair-classification")
