import numpy as np
import pytest
from PIL import Image

from lab.figures import plot_sampled_tokens
from modeling_sft.training.figures import plot_training_curves


def test_curves_are_drawn(tmp_path):
    history = [{"epoch": e, "loss": 1 / e} for e in (1, 2)] + [{"epoch": 2, "eval_loss": 0.4, "eval_accuracy": 0.7}]
    plot_training_curves(history, "accuracy", tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] >= 1000


def test_curves_of_nothing_are_drawn(tmp_path):
    plot_training_curves([], "accuracy", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()


@pytest.mark.parametrize("flat", [True, False])
def test_sampled_points_are_drawn(tmp_path, flat):
    points = np.random.default_rng(0).normal(size=(30, 3)) * [1, 1, 0 if flat else 1]
    sampled = [np.array([[0, 3, -1]]), np.array([[1, 2], [31, 5]])]
    plot_sampled_tokens(points, sampled, tmp_path / "sample.png", title="a cloud")
    width, height = Image.open(tmp_path / "sample.png").size
    assert width > height > 200
