"""Which relation belongs to which modality."""

from typing import Any

from .configuration_sft import SFTEncoderConfig
from .relation_base_sft import SFTRelation
from .relation_graph_sft import SFTGraphRelation
from .relation_point_cloud_sft import SFTPointCloudRelation
from .relation_sequence_sft import SFTSequenceRelation

RELATIONS: dict[str, type[SFTRelation]] = {
    "graph": SFTGraphRelation,
    "point_cloud": SFTPointCloudRelation,
    "sequence": SFTSequenceRelation,
}


def build_relation(config: SFTEncoderConfig) -> Any:
    """The relation module of the configuration's modality, or `None` where `relation` is off."""
    relation_class: Any = RELATIONS[config.modality]
    return relation_class(config) if config.relation else None


__all__ = ["build_relation"]
