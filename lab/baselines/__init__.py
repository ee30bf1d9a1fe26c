"""What recipes can train or fit instead of SFT; importing this package registers the names.

Models of other authors are the peers; the classical methods in `floor` say what a minute reaches without a network;
`context_counts` is the part of SFT that counts neighbourhoods.
"""

from modeling_sft.training.tasks import register_baseline

from .context_counts import CountsForGraphClassification, CountsForSequenceClassification
from .floor import Fingerprints, GraphCounts, ShapeHistograms, TextCounts, ValueTrees
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
register_baseline("context_counts", CountsForSequenceClassification, "sequence-classification")
register_baseline("context_counts", CountsForGraphClassification, *GRAPH_TASKS)
register_baseline("hashed_counts", TextCounts, "sequence-classification")
register_baseline("hashed_counts", GraphCounts, *GRAPH_TASKS)
register_baseline("fingerprints", Fingerprints, *GRAPH_TASKS)
register_baseline("shape_histograms", ShapeHistograms, "point-cloud-classification")
register_baseline("value_trees", ValueTrees, "sequence-classification")
