"""Pipelines of point clouds: the answers of the model, in batches, from files, saved, and without the package."""

import json

import numpy as np
import pytest
import torch
from transformers import pipeline

from answers import assert_alike
from hub.without_package import run_without_package
from modeling_sft import (
    SFTForPointCloudClassification,
    SFTForPointCloudSegmentation,
    SFTPointCloudModel,
    SFTPointCloudProcessor,
)
from point_cloud_files import write_off
from tiny_models import build

NAMES = {index: f"class {index}" for index in range(5)}
RNG = np.random.default_rng(0)
CLOUDS = [RNG.normal(size=(size, 3)) for size in (13, 9, 21)]


def saved(folder, cls=SFTForPointCloudClassification, **changes):
    """A random model saved with its processor."""
    fields = {"num_neighbors": 4, "id2label": NAMES, "num_labels": 5} | changes
    if fields["num_labels"] != 5:
        del fields["id2label"]
    model = build(cls, torch.float32, **fields)
    model.save_pretrained(folder)
    SFTPointCloudProcessor(num_neighbors=4).save_pretrained(folder)
    return model


def logits_of(model, cloud, **inputs):
    with torch.no_grad():
        return model(**SFTPointCloudProcessor(num_neighbors=4)(cloud), **inputs).logits[0]


def scores_of(answer):
    return {entry["label"]: entry["score"] for entry in answer}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_classes_in_batches_and_from_generators(tmp_path, batch_size):
    model = saved(tmp_path)
    classify = pipeline("point-cloud-classification", model=str(tmp_path), device="cpu")
    answers = classify(CLOUDS, batch_size=batch_size, top_k=None)
    for cloud, answer in zip(CLOUDS, answers, strict=True):
        expected = logits_of(model, cloud).softmax(-1)
        assert [scores_of(answer)[NAMES[index]] for index in range(5)] == pytest.approx(expected.tolist(), abs=1e-5)
        assert [entry["score"] for entry in answer] == sorted(scores_of(answer).values(), reverse=True)
    lazily = classify((cloud for cloud in CLOUDS), batch_size=batch_size, top_k=2)
    assert [[entry["label"] for entry in answer] for answer in lazily] == [
        [entry["label"] for entry in answer[:2]] for answer in answers
    ]
    assert classify([]) == []


def test_files_arrays_and_objects_are_read_alike(tmp_path):
    saved(tmp_path)
    classify = pipeline("point-cloud-classification", model=str(tmp_path), device="cpu", top_k=1)
    np.save(tmp_path / "cloud.npy", CLOUDS[0])
    header = f"ply\nformat ascii 1.0\nelement vertex {len(CLOUDS[0])}\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz") + "end_header\n"
    (tmp_path / "cloud.ply").write_text(header + "\n".join(" ".join(map(repr, row)) for row in CLOUDS[0].tolist()))
    write_off(tmp_path / "mesh.off")
    (alone,) = classify(CLOUDS[0])
    from_files = classify([str(tmp_path / "cloud.npy"), tmp_path / "cloud.ply", tmp_path / "mesh.off"], batch_size=3)
    assert [scores_of(answer) for answer in from_files[:2]] == [pytest.approx(scores_of([alone]), abs=1e-6)] * 2
    assert from_files[2][0]["score"] == pytest.approx(classify(tmp_path / "mesh.off")[0]["score"], abs=1e-6)
    (array,) = classify(np.stack([CLOUDS[0]]))
    (mapping,) = classify({"points": CLOUDS[0], "label": 3})
    assert array[0]["score"] == pytest.approx(mapping["score"], abs=1e-6) == pytest.approx(alone["score"], abs=1e-6)
    # Points of a mesh are drawn by the seed.
    scores = [classify(tmp_path / "mesh.off", seed=seed)[0]["score"] for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]


def test_several_labels_and_regression(tmp_path):
    model = saved(tmp_path / "several", problem_type="multi_label_classification")
    several = pipeline("point-cloud-classification", model=str(tmp_path / "several"), device="cpu")(CLOUDS[0])
    expected = dict(zip(NAMES.values(), logits_of(model, CLOUDS[0]).sigmoid().tolist(), strict=True))
    assert scores_of(several) == pytest.approx(expected, abs=1e-5)
    model = saved(tmp_path / "number", num_labels=1)
    (answer,) = pipeline("point-cloud-classification", model=str(tmp_path / "number"), device="cpu")(CLOUDS[0])
    assert answer["score"] == pytest.approx(float(logits_of(model, CLOUDS[0])), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_segmentation_labels_the_points_of_the_input(tmp_path, batch_size):
    model = saved(tmp_path, SFTForPointCloudSegmentation)
    label = pipeline("point-cloud-segmentation", model=str(tmp_path), device="cpu")
    for cloud, answer in zip(CLOUDS, label(CLOUDS, batch_size=batch_size), strict=True):
        expected = logits_of(model, cloud).softmax(-1)
        assert answer["labels"] == [NAMES[index] for index in expected.argmax(-1).tolist()]
        np.testing.assert_allclose(answer["scores"], expected.amax(-1), atol=1e-5)
        np.testing.assert_array_equal(answer["points"], cloud)
    # A processor that keeps some points only: the answer says which.
    label.feature_extractor.num_points = 7
    answer = label(CLOUDS[2])
    assert len(answer["labels"]) == len(set(answer["index"].tolist())) == 7
    np.testing.assert_array_equal(answer["points"], CLOUDS[2][answer["index"]])


def test_categories_restrict_the_labels_of_points(tmp_path):
    parts = [[0, 1], [2], [3, 4]]
    saved(tmp_path, SFTForPointCloudSegmentation, num_categories=3, category_parts=parts)
    label = pipeline("point-cloud-segmentation", model=str(tmp_path), device="cpu")
    shapes = [{"points": cloud, "category": category} for category, cloud in enumerate(CLOUDS)]
    for category, answer in enumerate(label(shapes, batch_size=3)):
        assert set(answer["labels"]) <= {NAMES[part] for part in parts[category]}
    assert label(shapes[1])["scores"] == pytest.approx(1.0)
    for category in (None, 3):
        with pytest.raises(ValueError, match="category.*0 to 2"):
            label({"points": CLOUDS[0], "category": category})


def test_embeddings_are_pooled_states_of_the_backbone(tmp_path):
    model = saved(tmp_path)
    embed = pipeline("point-cloud-feature-extraction", model=str(tmp_path), device="cpu")
    assert type(embed.model) is SFTPointCloudModel
    for cloud, vector in zip(CLOUDS, embed(CLOUDS, batch_size=3), strict=True):
        with torch.no_grad():
            inputs = SFTPointCloudProcessor(num_neighbors=4)(cloud)
            states = model.sft(**inputs).last_hidden_state[0]
        np.testing.assert_allclose(vector, states.mean(0), atol=1e-5)
        np.testing.assert_allclose(embed(cloud, pooling="max"), states.amax(0), atol=1e-5)
        np.testing.assert_allclose(embed(cloud, pooling=None), states, atol=1e-5)
        assert np.linalg.norm(embed(cloud, normalize=True)) == pytest.approx(1, abs=1e-5)
    assert [len(states) for states in embed(CLOUDS, batch_size=3, pooling=None)] == [13, 9, 21]


def test_a_model_in_training_predicts_as_at_inference(tmp_path):
    model = saved(tmp_path).train()
    processor = SFTPointCloudProcessor(num_neighbors=4)
    classify = pipeline("point-cloud-classification", model=model, feature_extractor=processor, device="cpu")
    assert classify(CLOUDS[2]) == classify(CLOUDS[2])


def test_what_is_missing_or_does_not_fit_is_said(tmp_path):
    model = saved(tmp_path)
    folder = str(tmp_path)
    classify = pipeline("point-cloud-classification", model=folder, device="cpu")
    with pytest.raises(ValueError, match="top_k"):
        classify(CLOUDS[0], top_k=0)
    with pytest.raises(ValueError, match="unknown key 'normal'.*normals"):
        classify({"points": CLOUDS[0], "normal": CLOUDS[0]})
    with pytest.raises((ValueError, OSError), match=r"absent\.npy"):
        classify(str(tmp_path / "absent.npy"))
    with pytest.raises(ValueError, match="Input 1 of the list: .*points"):
        classify([CLOUDS[0], CLOUDS[1][:, :2]], batch_size=2)
    with pytest.raises(ValueError, match="push_to_hub"):
        classify.save_pretrained(tmp_path / "pushed", push_to_hub=True)
    with pytest.raises(ValueError, match="pooling"):
        pipeline("point-cloud-feature-extraction", model=folder, device="cpu", pooling="sum")
    with pytest.raises(ValueError, match="needs a SFTForPointCloudSegmentation"):
        pipeline("point-cloud-segmentation", model=model, feature_extractor=classify.feature_extractor)
    # The head of another task would be a random one.
    with pytest.raises(ValueError, match="saved as SFTForPointCloudClassification"):
        pipeline("point-cloud-segmentation", model=folder, device="cpu")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="no preprocessor_config.json.*SFTPointCloudProcessor"):
        pipeline("point-cloud-classification", model=folder, device="cpu")


WITHOUT_PACKAGE = """
import json
import numpy as np
from transformers import AutoModel, pipeline

folder, task = sys.argv[1], "point-cloud-TASK"
clouds = np.load(folder + "/clouds.npy")
pipe = pipeline(task, model=folder, trust_remote_code=True, device="cpu")
for thing in (pipe, pipe.model, pipe.feature_extractor):
    assert type(thing).__module__.startswith("transformers_modules."), type(thing)
answers = pipe(list(clouds), batch_size=2)
pipe.save_pretrained(folder + "/again")
again = pipeline(task, model=folder + "/again", trust_remote_code=True, device="cpu")
with open(folder + "/answers.json", "w") as file:
    json.dump([answers, again(list(clouds), batch_size=2)], file, default=lambda array: array.tolist())
assert type(AutoModel.from_pretrained(folder, trust_remote_code=True)).__name__ == "SFTPointCloudModel"
print("REMOTE CODE WORKS")
"""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "segmentation", "feature-extraction"])
def test_a_saved_pipeline_works_without_the_package(tmp_path, task):
    head = SFTForPointCloudSegmentation if task == "segmentation" else SFTForPointCloudClassification
    saved(tmp_path / "model", head)
    pipe = pipeline(f"point-cloud-{task}", model=str(tmp_path / "model"), device="cpu")
    folder = tmp_path / "pipeline"
    pipe.save_pretrained(folder)
    clouds = np.stack([CLOUDS[0][:9], CLOUDS[1]])
    np.save(folder / "clouds.npy", clouds)
    result = run_without_package(folder, tmp_path, WITHOUT_PACKAGE.replace("TASK", task))
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]
    for answers in json.loads((folder / "answers.json").read_text()):
        assert_alike(answers, pipe(clouds, batch_size=2))


def test_a_model_saved_without_the_pipelines_code_does_not_ask_for_it(tmp_path):
    model = saved(tmp_path / "model")
    pipe = pipeline("point-cloud-classification", model=str(tmp_path / "model"), device="cpu", top_k=1)
    pipe.save_pretrained(tmp_path / "pipeline")
    loaded = SFTForPointCloudClassification.from_pretrained(tmp_path / "pipeline")
    for name, instance in (("again", pipe.model), ("loaded", loaded)):
        instance.save_pretrained(tmp_path / name)
        pipe.feature_extractor.save_pretrained(tmp_path / name)
        (answer,) = pipeline("point-cloud-classification", model=str(tmp_path / name), device="cpu")(
            CLOUDS[0], top_k=1
        )
        assert answer["score"] == pytest.approx(float(logits_of(model, CLOUDS[0]).softmax(-1).max()), abs=1e-5)
    # Saved over the pipeline, whose code is still there, the model stays part of it.
    SFTForPointCloudClassification.from_pretrained(tmp_path / "pipeline").save_pretrained(tmp_path / "pipeline")
    again = pipeline("point-cloud-classification", str(tmp_path / "pipeline"), trust_remote_code=True, device="cpu")
    assert type(again).__module__.startswith("transformers_modules.")
    assert again(CLOUDS[0], top_k=1)[0]["score"] == pytest.approx(answer["score"], abs=1e-5)
