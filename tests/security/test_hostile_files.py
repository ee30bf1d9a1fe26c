"""Hostile configurations, processors, indices, recipes, reports and data: an error, and nothing written outside."""

import json
import math
import re
import resource
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoProcessor

from lab.readers.contents import read_archive
from lab.readers.point_cloud.hdf5 import read_hdf5
from modeling_sft import (
    SFTConfig,
    SFTForPointCloudClassification,
    SFTGraphConfig,
    SFTGraphProcessor,
    SFTPointCloudProcessor,
    load_point_cloud,
)
from modeling_sft.publishing import prepare
from modeling_sft.training import evaluate, load_recipe
from security.hostile import Trap, change_json

WEIGHTS_ELSEWHERE = (("../", "bin"), ("", "bin"), ("../", "safetensors"), ("a/", "safetensors.index.json"))


@pytest.fixture
def little_memory():
    """Fails where the process grew much beyond its largest size so far."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("hidden_size", value) for value in (24 * 10**11, 3 * 2**20, -24, 0, 24.5, math.nan, "24", [24], None)),
        *(("num_hidden_layers", value) for value in (10**9, 5000, -1, "2")),
        *(("num_labels", value) for value in (10**9, -5, 2.5, "3", [])),
        *(("id2label", value) for value in ({"one": "a"}, ["a", "b"], "ab")),
        *(("norm_eps", value) for value in (math.nan, math.inf, -1.0, "1e-5")),
        ("num_extra_tokens", 10**10),
        ("intermediate_size", 10**12),
        ("num_categories", 10**9),
        ("num_point_features", 10**9),
        ("num_neighbors", 10**10),
        *(("num_sampled_tokens", value) for value in (-1, 2**20 + 1, 10**12)),
        *(("num_sampled_tokens_range", value) for value in ([1, "2"], [1, 10**12])),
        ("category_parts", [[10**12]]),
        ("hidden_act", "os.system"),
        ("hidden_dropout_prob", math.nan),
        ("hiden_size", 24),
        *(("transformers_weights", f"{name}weights.{kind}") for name, kind in WEIGHTS_ELSEWHERE),
    ],
)
def test_configurations_out_of_range_name_the_field(folder, little_memory, field, value):
    beside = {"num_categories": 1} if field == "category_parts" else {}
    change_json(folder / "config.json", **beside | {field: value})
    for loader in (AutoConfig, SFTForPointCloudClassification):
        with pytest.raises((ValueError, StrictDataclassError), match=field):
            loader.from_pretrained(folder)


def test_sizes_of_other_inputs_are_bounded_too():
    with pytest.raises(StrictDataclassError, match="vocab_size"):
        SFTConfig(vocab_size=10**9)
    with pytest.raises(StrictDataclassError, match="node_vocab_sizes"):
        SFTGraphConfig(node_vocab_sizes=[3, 10**9])


@pytest.mark.parametrize("text", ["", "[1]", "3", "{", '{"a":' * 100_000 + "1" + "}" * 100_000, "\0" * 100])
def test_what_is_no_configuration_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    for loader in (AutoConfig, SFTForPointCloudClassification):
        with pytest.raises((ValueError, OSError, TypeError, RecursionError)):
            loader.from_pretrained(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("num_neighbors", value) for value in (10**12, -1, "4", 2.5, None)),
        *(("num_mesh_points", value) for value in (10**12, 0, "9")),
        *(("num_points", value) for value in (0, "all", [3])),
        ("do_center", "yes"),
        ("point_sampling", "../random"),
        ("num_neighbours", 3),
    ],
)
def test_processors_out_of_range_name_the_argument(folder, field, value):
    change_json(folder / "preprocessor_config.json", **{field: value})
    for loader in (AutoProcessor, SFTPointCloudProcessor):
        with pytest.raises(ValueError, match=field):
            loader.from_pretrained(folder)


def test_encodings_of_graphs_are_bounded():
    for name in ("random_walk_steps", "laplacian_vectors"):
        with pytest.raises(ValueError, match=name):
            SFTGraphProcessor(**{name: 10**9})


@pytest.mark.parametrize("name", ["../outside.safetensors", "/outside.safetensors", "..\\w.safetensors", "", 7, None])
def test_shards_outside_of_the_folder_are_not_read(folder, name):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(weights, folder.parent / "outside.safetensors", metadata={"format": "pt"})
    if str(name).startswith("/"):
        name = f"{folder.parent}{name}"
    index = folder / "model.safetensors.index.json"
    change_json(index, metadata={}, weight_map=dict.fromkeys(weights, name))
    with pytest.raises(ValueError, match=r"index\.json.*same folder"):
        SFTForPointCloudClassification.from_pretrained(folder)
    change_json(index, weight_map=dict.fromkeys(weights, "absent.safetensors"))
    with pytest.raises(OSError, match=r"absent\.safetensors"):
        SFTForPointCloudClassification.from_pretrained(folder)
    for text in ("[]", "{", '{"weight_map": 3}', "[" * 100_000):
        index.write_text(text)
        with pytest.raises(ValueError, match=r"index\.json.*damaged"):
            SFTForPointCloudClassification.from_pretrained(folder)


def test_weights_with_impossible_headers_are_refused(folder, little_memory):
    huge = {"weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    header = json.dumps(huge).encode()
    for data in (struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", len(header)) + header, b""):
        (folder / "model.safetensors").write_bytes(data)
        with pytest.raises(SafetensorError):
            SFTForPointCloudClassification.from_pretrained(folder)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "task: !!python/object/apply:os.mkdir [MARK]\n",
        "task: !!python/object/new:os.mkdir [MARK]\n",
        "dataset: {name: !!python/name:os.system ''}\ntask: point-cloud-classification\n",
        BOMB,
        "seed: &a [*a]\n",
        "[" * 1_500,
        "task: ../../task\ndataset: {name: digits}\n",
        "task: point-cloud-classification\ndataset: {name: ../../digits}\n",
        "task: point-cloud-classification\ndataset: {name: digits}\nmodel: {hidden_size: 240000000000}\n",
        "task: point-cloud-classification\ndataset: {name: digits}\ntraining: {output_dir: ../elsewhere}\n",
        "task: point-cloud-classification\ndataset: {name: digits}\nseed: .nan\n",
        "- 1\n",
        "base: /dev/zero\n",
        "base: recipe.yaml\n",
    ],
    ids=range(14),
)
def test_hostile_recipes_are_refused(run, mark, little_memory, text):
    (run / "recipe.yaml").write_text(text.replace("MARK", json.dumps(str(mark))))
    before = {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")}
    readers = [lambda: evaluate(run)]
    if "../../digits" not in text:  # the others read no data
        readers += [lambda: prepare(run, "lab/model"), lambda: load_recipe(run)]
    for read in readers:
        with pytest.raises((ValueError, StrictDataclassError)):
            read()
    assert {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")} == before


@pytest.mark.parametrize("name", ["evaluation.json", "training_log.json", "README.md"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "[" * 100_000,
        '{"task": "../x", "results": 3}',
        '{"task": "point-cloud-classification", "dataset": "x", "split": "x", "num_examples": "x", '
        '"num_parameters": 1e999, "results": {"../none": {"../accuracy": "x"}}}',
        "---\nmodel-index: !!python/object/apply:os.mkdir [MARK]\n---\n",
    ],
    ids=range(6),
)
def test_hostile_reports_and_cards_are_not_published(run, mark, name, text):
    (run / name).write_text(text.replace("MARK", json.dumps(str(mark))))
    outside = set(run.parent.iterdir())
    with pytest.raises((ValueError, RecursionError, yaml.YAMLError)):
        prepare(run, "lab/model")
    assert set(run.parent.iterdir()) == outside


def test_evaluation_does_not_write_through_links(run):
    target = run.parent / "precious.json"
    target.write_text("precious")
    (run / "evaluation.json").unlink()
    (run / "evaluation.json").symlink_to(target)
    evaluate(run, rotations=["none"], batch_size=64, output=run / "evaluation.json")
    assert target.read_text() == "precious"
    assert json.loads((run / "evaluation.json").read_text())["dataset"] == "digits"


def test_saving_does_not_write_through_links(folder):
    target = folder.parent / "precious.json"
    model, processor = SFTForPointCloudClassification.from_pretrained(folder), SFTPointCloudProcessor()
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", "configuration_sft.py"):
        target.write_text("precious")
        (folder / name).unlink()
        (folder / name).symlink_to(target)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    assert target.read_text() == "precious"
    SFTForPointCloudClassification.from_pretrained(folder)


HEADERS = {
    "a.off": b"OFF\n999999999999 999999999999 0\n0 0 0\n",
    "a.ply": b"ply\nformat ascii 1.0\nelement vertex 999999999999\nproperty float x\nend_header\n1\n",
    "b.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 999999999999\nproperty float x\nproperty float y\n"
    b"property float z\nelement face 999999999999\nproperty list uchar int vertex_indices\nend_header\n" + bytes(64),
    "c.ply": b"ply\nformat binary_big_endian 1.0\nelement vertex 999999999999\nproperty float x\nend_header\n"
    + bytes(64),
    "a.stl": bytes(80) + b"\xff\xff\xff\xff" + bytes(50),
    "a.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 3), }".ljust(128),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_announce_much_allocate_little(tmp_path, little_memory, name):
    (tmp_path / name).write_bytes(HEADERS[name])
    with pytest.raises(ValueError, match=name):
        load_point_cloud(tmp_path / name)


def test_h5_that_announces_much_allocates_little(tmp_path, little_memory):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("points", (10**11, 3), "f8", chunks=(2**20, 3), compression="gzip")
    with pytest.raises(ValueError, match=r"a\.h5"):
        load_point_cloud(tmp_path / "a.h5")


READ_ARRAYS = {".npz": read_archive, ".h5": read_hdf5}


def zeros_npz(path):
    np.savez_compressed(path, points=np.zeros((2**23, 3), dtype=np.float32))


def zeros_h5(path):
    with pytest.importorskip("h5py").File(path, "w") as file:
        file.create_dataset("points", data=np.zeros((2**23, 3), dtype=np.float32), compression="gzip")


@pytest.fixture(scope="module", params=[zeros_npz, zeros_h5], ids=["npz", "h5"])
def bomb(request, tmp_path_factory):
    """A file of 0.1 MB that unpacks to 100 MB."""
    suffix = request.param.__name__.partition("_")[2]
    path = tmp_path_factory.mktemp("bombs") / f"bomb.{suffix}"
    request.param(path)
    return path


def test_what_unpacks_to_far_more_than_the_file_is_refused(bomb, tmp_path):
    tracemalloc.start()
    try:
        for read, options in ((load_point_cloud, {}), (READ_ARRAYS[bomb.suffix], {"names": ["points"]})):
            with pytest.raises(ValueError, match=r"bomb.*would unpack to 100663\d+, more than 100 times as many"):
                read(bomb, **options)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    # Equal numbers shrink as much, and are read where they are few.
    np.savez_compressed(tmp_path / "few.npz", points=np.ones((10_000, 3)))
    assert len(load_point_cloud(tmp_path / "few.npz")["points"]) == 10_000


def test_archives_are_not_unpickled_or_unpacked(tmp_path, mark):
    array = np.empty(1, dtype=object)
    array[0] = Trap(mark)
    np.savez(tmp_path / "objects.npz", points=array)
    with pytest.raises(ValueError, match=r"objects\.npz"):
        read_archive(tmp_path / "objects.npz", ["points"])
    np.savez(tmp_path / "slip.npz", **{"../../slipped": np.zeros(3), "points": np.zeros((4, 3))})
    before = set(tmp_path.parent.rglob("*"))
    assert list(read_archive(tmp_path / "slip.npz", ["../../slipped"])) == ["../../slipped"]
    assert load_point_cloud(tmp_path / "slip.npz")["points"].shape == (4, 3)
    assert set(tmp_path.parent.rglob("*")) == before


def test_processed_graphs_are_not_unpickled(tmp_path, mark):
    pytest.importorskip("torch_geometric")
    from lab.readers.graph.lrgb import _generate

    torch.save(({"x": torch.zeros(1), "trap": Trap(mark)}, {}, None), tmp_path / "test.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        list(_generate([tmp_path / "test.pt"], True))


def test_no_reader_allows_pickles():
    import modeling_sft

    for source in Path(modeling_sft.__file__).parent.rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        forbidden = r"allow_pickle=True|weights_only=False|extractall|read_pickle|joblib|(?<![\w.])(eval|exec)\("
        assert not re.search(forbidden, text), source
