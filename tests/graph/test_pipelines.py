"""Pipelines of graphs: the answers of the model, from SMILES, rows and objects, and without the package."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import pipeline

from answers import assert_alike
from hub.without_package import run_without_package
from modeling_sft import SFTForGraphClassification, SFTForNodeClassification, SFTGraphProcessor
from tiny_models import build_graph

PATH = {
    "node_feat": [[0], [4], [2]],
    "edge_index": [[0, 1, 1, 2], [1, 0, 2, 1]],
    "edge_attr": [[0.5], [1], [2], [0.1]],
}
DOT = {"node_feat": [[3]], "edge_index": [[], []]}
RING = {
    "node_feat": [[1], [1], [0], [4], [2]],
    "edge_index": [[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]],
    "edge_attr": [[0.5], [1.5], [2.5], [0.5], [1.0]],
}
GRAPHS = [PATH, DOT, RING]


def saved(folder, cls=SFTForGraphClassification, processor=None, **changes):
    """A random model saved with its processor."""
    processor = processor or SFTGraphProcessor(random_walk_steps=3)
    columns = {"node_vocab_sizes": [5], "num_node_features": 0, "edge_vocab_sizes": None, "num_edge_features": 1}
    model = build_graph(cls, torch.float32, **(columns | {"num_node_encodings": 3} | changes))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def logits_of(model, graph, processor=None):
    with torch.no_grad():
        return model(**(processor or SFTGraphProcessor(random_walk_steps=3))(graph)).logits[0]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_classes_in_batches_whatever_the_graphs_sizes(tmp_path, batch_size):
    model = saved(tmp_path)
    classify = pipeline("graph-classification", model=str(tmp_path), device="cpu", top_k=None)
    expected = [logits_of(model, graph).softmax(-1) for graph in GRAPHS]
    # Labels, which only some of the graphs have, are not read.
    rows = [PATH | {"y": [1]}, DOT, RING]
    for inputs in (rows, (row for row in rows)):
        for answer, scores in zip(classify(inputs, batch_size=batch_size), expected, strict=True):
            by_label = {entry["label"]: entry["score"] for entry in answer}
            assert [by_label[f"LABEL_{index}"] for index in range(5)] == pytest.approx(scores.tolist(), abs=1e-5)
            assert answer == sorted(answer, key=lambda entry: -entry["score"])
    assert classify(RING, top_k=2) == classify(RING)[:2]


def test_objects_of_pytorch_geometric(tmp_path):
    saved(tmp_path)
    classify = pipeline("graph-classification", model=str(tmp_path), device="cpu")
    data = SimpleNamespace(
        x=torch.tensor(RING["node_feat"]),
        edge_index=torch.tensor(RING["edge_index"]),
        edge_attr=torch.tensor(RING["edge_attr"]),
        y=None,
    )
    assert classify(data) == classify(RING)
    geometric = pytest.importorskip("torch_geometric.data")
    ring = geometric.Data(x=data.x, edge_index=data.edge_index, edge_attr=data.edge_attr)
    assert classify(ring) == classify(RING)
    for answer in classify(geometric.Batch.from_data_list([ring, ring]), batch_size=2):
        assert [entry["label"] for entry in answer] == [entry["label"] for entry in classify(RING)]
        assert [entry["score"] for entry in answer] == pytest.approx([entry["score"] for entry in classify(RING)])


def test_molecules_and_several_targets(tmp_path):
    pytest.importorskip("rdkit")
    processor = SFTGraphProcessor()
    sizes = processor.molecule_vocab_sizes()
    fields = {"problem_type": "regression", "target_mean": [1.0] * 5, "target_scale": [2.0] * 5}
    model = saved(tmp_path, processor=processor, num_node_encodings=0, num_edge_features=0, **(sizes | fields))
    predict = pipeline("graph-classification", model=str(tmp_path), device="cpu")
    for smiles, answer in zip(["CCO", "C"], predict(["CCO", "C"], batch_size=2, top_k=1), strict=True):
        assert [entry["label"] for entry in answer] == [f"LABEL_{index}" for index in range(5)]
        expected = logits_of(model, smiles, processor).tolist()
        assert [entry["score"] for entry in answer] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="Input 1 of the list.*C1CC"):
        predict(["CCO", "C1CC"])
    (tmp_path / "new.smi").write_text("CCO ethanol\n\nC methane\n")
    (tmp_path / "new.txt").write_text("CCO\nC\n")
    (tmp_path / "new.csv").write_text('name,molecule\n"ethanol, pure",CCO\nmethane,C\nnone,\n')
    for name, column in (("new.smi", {}), ("new.txt", {}), ("new.csv", {"column": "molecule"})):
        assert predict(tmp_path / name, batch_size=2, **column) == predict(["CCO", "C"], batch_size=2)
    with pytest.raises(ValueError, match=r"new\.csv` has no column 'smiles': name one of name, molecule"):
        predict(str(tmp_path / "new.csv"))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_nodes_are_labelled_in_their_order(tmp_path, batch_size, problem_type):
    model = saved(tmp_path, SFTForNodeClassification, problem_type=problem_type)
    label = pipeline("node-classification", model=str(tmp_path), device="cpu")
    for graph, answer in zip(GRAPHS, label(GRAPHS, batch_size=batch_size), strict=True):
        logits = logits_of(model, graph)
        if problem_type == "multi_label_classification":
            assert set(answer) == {"scores"}
            np.testing.assert_allclose(answer["scores"], logits.sigmoid(), atol=1e-5)
        else:
            assert answer["labels"] == [f"LABEL_{index}" for index in logits.argmax(-1).tolist()]
            np.testing.assert_allclose(answer["scores"], logits.softmax(-1).amax(-1), atol=1e-5)


def test_embeddings_find_the_same_graph(tmp_path):
    saved(tmp_path)
    embed = pipeline("graph-feature-extraction", model=str(tmp_path), device="cpu", normalize=True)
    vectors = np.stack(embed(GRAPHS, batch_size=3))
    assert vectors.shape == (3, 24)
    order = np.array([2, 0, 1])
    place = np.argsort(order)
    renamed = {"node_feat": [PATH["node_feat"][index] for index in order], "edge_attr": PATH["edge_attr"]}
    renamed["edge_index"] = place[np.array(PATH["edge_index"])].tolist()
    similarities = vectors @ embed(renamed)
    assert similarities.argmax() == 0 and similarities[0] == pytest.approx(1, abs=1e-5)
    states = embed(PATH, pooling=None, normalize=False)
    np.testing.assert_allclose(embed(PATH, normalize=False), states.mean(0), atol=1e-5)


def test_what_is_missing_or_does_not_fit_is_said(tmp_path):
    saved(tmp_path, SFTForNodeClassification)
    with pytest.raises(ValueError, match="saved as SFTForNodeClassification"):
        pipeline("graph-classification", model=str(tmp_path), device="cpu")
    label = pipeline("node-classification", model=str(tmp_path), device="cpu")
    with pytest.raises(ValueError, match="^graph must be"):
        label(3)
    with pytest.raises(ValueError, match="Input 2 of the list: .*edge_index"):
        label([PATH, DOT, {"node_feat": [[0]], "edge_index": [[0], [7]]}], batch_size=2)
    with pytest.raises(TypeError, match="has no argument `top_k`: it takes batch_size, num_workers"):
        label(PATH, top_k=2)
    with pytest.raises(ValueError, match="needs a SFTPointCloudProcessor|needs a SFTForPointCloud"):
        pipeline("point-cloud-classification", model=label.model, feature_extractor=label.feature_extractor)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="no preprocessor_config.json.*SFTGraphProcessor"):
        pipeline("node-classification", model=str(tmp_path), device="cpu")


WITHOUT_PACKAGE = """
import json
from transformers import pipeline

folder = sys.argv[1]
rows = json.load(open(folder + "/rows.json"))
pipe = pipeline("TASK", model=folder, trust_remote_code=True, device="cpu")
for thing in (pipe, pipe.model, pipe.feature_extractor):
    assert type(thing).__module__.startswith("transformers_modules."), type(thing)
with open(folder + "/answers.json", "w") as file:
    json.dump(pipe(rows, batch_size=3), file, default=lambda array: array.tolist())
print("REMOTE CODE WORKS")
"""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["graph-classification", "node-classification"])
def test_a_saved_pipeline_works_without_the_package(tmp_path, task):
    saved(tmp_path / "model", SFTForNodeClassification if task.startswith("node") else SFTForGraphClassification)
    pipe = pipeline(task, model=str(tmp_path / "model"), device="cpu")
    folder = tmp_path / "pipeline"
    pipe.save_pretrained(folder)
    (folder / "rows.json").write_text(json.dumps(GRAPHS))
    result = run_without_package(folder, tmp_path, WITHOUT_PACKAGE.replace("TASK", task))
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]
    assert_alike(json.loads((folder / "answers.json").read_text()), pipe(GRAPHS, batch_size=3))
