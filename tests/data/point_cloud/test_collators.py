"""The collator pads clouds and joins labels."""

import numpy as np
import pytest
import torch

from modeling_sft.data import PointCloudCollator
from modeling_sft.point_cloud.processing import SFTPointCloudProcessor

PROCESSOR = SFTPointCloudProcessor(num_neighbors=2)


def item(num_points, **extra):
    return {**PROCESSOR.preprocess(np.random.default_rng(num_points).normal(size=(num_points, 3))), **extra}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([2, 0], torch.tensor([2, 0])),
        ([np.int16(2), np.int64(0)], torch.tensor([2, 0])),
        ([0.5, 1.0], torch.tensor([0.5, 1.0])),
        ([np.array([1.0, 0.0]), np.array([0.0, 1.0])], torch.eye(2)),
    ],
)
def test_labels_and_inputs(labels, expected):
    items = [item(3, labels=labels[0]), item(5, labels=labels[1])]
    batch = PointCloudCollator(PROCESSOR)(items)
    assert batch["labels"].dtype == expected.dtype and torch.equal(batch["labels"], expected)
    padded = PROCESSOR.pad(items)
    assert set(batch) == {*padded, "labels"}
    assert all(torch.equal(batch[name], value) for name, value in padded.items())


def test_labels_are_optional_but_not_for_some():
    assert "labels" not in PointCloudCollator(PROCESSOR)([item(3), item(4)])
    with pytest.raises(ValueError, match=r"items\[1\] has no labels"):
        PointCloudCollator(PROCESSOR)([item(3, labels=0), item(4)])
    with pytest.raises(ValueError, match="labels differ in shape"):
        PointCloudCollator(PROCESSOR)([item(3, labels=0), item(4, labels=np.zeros(2))])


def test_labels_of_points_are_padded_and_the_category_goes_to_models_that_take_one():
    items = [item(3, category=np.int64(4)), item(5, category=1)]
    for one in items:
        one["point_labels"] = np.arange(len(one["points"]))
    batch = PointCloudCollator(PROCESSOR, with_category=True)(items)
    assert batch["labels"].tolist() == [[0, 1, 2, -100, -100], [0, 1, 2, 3, 4]]
    assert batch["category"].dtype == torch.int64 and batch["category"].tolist() == [4, 1]
    assert "category" not in PointCloudCollator(PROCESSOR)(items)
    with pytest.raises(ValueError, match=r"items\[1\] has no category"):
        PointCloudCollator(PROCESSOR, with_category=True)([items[0], item(3, point_labels=np.zeros(3, int))])
    with pytest.raises(ValueError, match="labels and point_labels"):
        PointCloudCollator(PROCESSOR)([one | {"labels": 0} for one in items])
