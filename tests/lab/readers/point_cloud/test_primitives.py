"""Synthetic shapes: fixed, exact and varied."""

import numpy as np
import pytest

from lab.readers.point_cloud.primitives import CATEGORIES, assemble
from lab.readers.point_cloud.solids import sample_union
from modeling_sft.data import load_point_cloud_dataset


@pytest.fixture(scope="module")
def splits():
    return load_point_cloud_dataset("primitives", num_train=60, num_test=13)


def test_rows(splits):
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 60, "test": 13}
    for rows in splits.values():
        assert rows.column_names == ["points", "normals", "label", "point_labels"]
        names = rows.features["label"].names
        part_names = rows.features["point_labels"].feature.names
        assert names == ["chair", "dumbbell", "lamp", "mug", "rocket", "table"]
        assert len(set(part_names)) == len(part_names) == 16
        for index, row in enumerate(rows):
            assert row["points"].shape == row["normals"].shape == (1024, 3)
            assert row["points"].dtype == row["normals"].dtype == np.float32
            assert row["point_labels"].shape == (1024,) and row["label"] == index % 6
            assert {part_names[part].split("/")[0] for part in row["point_labels"]} == {names[row["label"]]}
            np.testing.assert_allclose(np.linalg.norm(row["normals"], axis=1), 1, atol=1e-6)
            radius = np.linalg.norm(row["points"], axis=1).max()
            assert 0.95 < radius < 1.06 and np.abs(row["points"].mean(axis=0)).max() < 0.002
    seen = set(np.unique(splits["train"]["point_labels"][:]))
    assert seen == set(range(16))


def test_every_category_has_two_to_four_parts():
    for category, (_, parts) in CATEGORIES.items():
        assert 2 <= len(parts) <= 4
        found = {name for seed in range(20) for name, _ in assemble(category, np.random.RandomState(seed))}
        assert found == set(parts)


def test_rows_are_fixed_and_do_not_depend_on_their_number(splits):
    again = load_point_cloud_dataset("primitives", "ignored", num_train=7, num_test=2)
    for split, rows in again.items():
        for row, expected in zip(rows, splits[split]):
            assert all(np.array_equal(row[name], expected[name]) for name in row)
    points = np.stack([row["points"] for rows in splits.values() for row in rows])
    assert len({cloud.tobytes() for cloud in points}) == 73
    first, last = splits["train"][0], splits["train"][59]
    np.testing.assert_allclose(first["points"][0], [0.335, -0.1149, -0.7116], atol=1e-3)
    np.testing.assert_allclose(last["points"][0], [0.0344, 0.0351, 0.1823], atol=1e-3)
    assert first["point_labels"][:8].tolist() == [2, 1, 0, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("category", CATEGORIES)
def test_labels_and_normals_are_exact(category):
    for seed in range(12):
        rng = np.random.RandomState(seed)
        parts = assemble(category, rng)
        solids = [solid for _, solid in parts]
        points, normals, owners = sample_union(solids, rng, 400)
        for number, solid in enumerate(solids):
            own = owners == number
            assert solid.contains(points[own] - 1e-6 * normals[own]).all()
            assert not solid.contains(points[own] + 1e-6 * normals[own]).any()
            # Nothing is on the surface of two parts, where its label would be a matter of chance.
            for name, other in parts:
                if name != parts[number][0]:
                    inside = other.contains(points[own] - 1e-9) | other.contains(points[own] + 1e-9)
                    assert not inside.any()
        # Each part shows, unless it is tiny.
        assert len({parts[owner][0] for owner in owners}) == len({name for name, _ in parts})


def test_shapes_hold_together():
    """Every solid overlaps another one, so that no part floats."""
    for category in CATEGORIES:
        for seed in range(12):
            rng = np.random.RandomState(seed)
            solids = [solid for _, solid in assemble(category, rng)]
            reached = {0}
            surfaces = [solid.sample(rng, 3000)[0] for solid in solids]
            for _ in solids:
                for number, solid in enumerate(solids):
                    touches = (
                        solid.contains(surfaces[i]).any() or solids[i].contains(surfaces[number]).any()
                        for i in reached
                    )
                    if number not in reached and any(list(touches)):
                        reached.add(number)
            assert reached == set(range(len(solids))), (category, seed)


def test_jitter_is_as_stated(splits):
    """Points of a flat, level face differ in height by the jitter alone."""
    row = splits["train"][5]
    names = splits["train"].features["point_labels"].feature.names
    top = row["point_labels"] == names.index("table/top")
    level = top & (row["normals"][:, 2] > 0.999)
    assert level.sum() > 100
    assert row["points"][level, 2].std() == pytest.approx(0.01, rel=0.25)


def test_numbers_of_rows_are_validated():
    for options in ({"num_train": 0}, {"num_test": -1}, {"num_test": 1.5}, {"num_train": True}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be an integer of at least 1"):
            load_point_cloud_dataset("primitives", **options)
