"""Memory of passes over large clouds and long sequences, measured as the process's peak."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PEAK = """
import json, sys
from pathlib import Path

import torch

def peak_mib():
    # Not ru_maxrss: a child process inherits its parent's.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

"""

CLOUD = """
from modeling_sft import SFTPointCloudConfig, SFTPointCloudModel

length, sizes = int(sys.argv[1]), json.loads(sys.argv[2])
torch.manual_seed(0)
config = SFTPointCloudConfig(num_hidden_layers=2, num_attention_heads=4, **sizes)
model = SFTPointCloudModel(config).eval()
points = torch.randn(1, length, 3)
normals = torch.nn.functional.normalize(torch.randn(1, length, 3), dim=-1)
neighbors = torch.randint(length, (1, length, config.num_neighbors))
with torch.no_grad():
    model(points[:, :512], normals=normals[:, :512], neighbor_index=neighbors[:, :512] % 512)  # warm-up
    before = peak_mib()
    states = model(points, normals=normals, neighbor_index=neighbors).last_hidden_state
    after = peak_mib()
assert states.isfinite().all()
print(json.dumps({"growth_mib": after - before, "total_mib": after}))
"""

SEQUENCE = """
from modeling_sft import SFTConfig, SFTForSequenceClassification

length, sizes = int(sys.argv[1]), json.loads(sys.argv[2])
trains = sizes.pop("trains")
torch.manual_seed(0)
model = SFTForSequenceClassification(SFTConfig(num_attention_heads=4, residual_scale_init=1.0, **sizes)).train(trains)
tokens, labels = torch.randint(4, 260, (1, length)), torch.tensor([1])

def run(tokens):
    with torch.set_grad_enabled(trains):
        loss = model(tokens, labels=labels).loss
        if trains:
            loss.backward()
    assert loss.isfinite()

run(tokens[:, :512])  # warm-up
before = peak_mib()
run(tokens)
after = peak_mib()
print(json.dumps({"growth_mib": after - before, "total_mib": after}))
"""

GRAPH = """
from modeling_sft import SFTForNodeClassification, SFTGraphConfig

nodes, sizes = int(sys.argv[1]), json.loads(sys.argv[2])
torch.manual_seed(0)
config = SFTGraphConfig(num_node_features=16, num_attention_heads=4, num_labels=10, **sizes)
model = SFTForNodeClassification(config).eval()
features, edges = torch.randn(1, nodes, 16), torch.randint(nodes, (1, 2, 10 * nodes))
with torch.no_grad():
    model(features[:, :512], edges[..., :2048] % 512)  # warm-up
    before = peak_mib()
    logits = model(features, edges).logits
    after = peak_mib()
assert logits.isfinite().all()
print(json.dumps({"growth_mib": after - before, "total_mib": after}))
"""


def peak(length: int, script: str = CLOUD, **sizes: int) -> dict[str, float]:
    # A fixed threshold returns freed blocks to the system: the peak is then that of live tensors.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", PEAK + script, str(length), json.dumps(sizes)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak from /proc, which only Linux has")
def test_a_pass_over_65536_points_grows_linearly_and_stays_small():
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_sampled_tokens": 64}
    peaks = {length: peak(length, **sizes) for length in (16_384, 32_768, 65_536)}
    print(peaks)
    assert peaks[65_536]["total_mib"] < 2048
    for length in (16_384, 32_768):
        assert peaks[2 * length]["growth_mib"] <= 2.2 * peaks[length]["growth_mib"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak from /proc, which only Linux has")
def test_a_million_points_fit_into_two_gibibytes_beyond_the_model():
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_sampled_tokens": 256}
    quarter, whole = peak(250_000, **sizes), peak(1_000_000, **sizes)
    print(quarter, whole)
    assert whole["growth_mib"] < 2048 and whole["total_mib"] < 4096
    assert whole["growth_mib"] <= 4.2 * quarter["growth_mib"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak from /proc, which only Linux has")
@pytest.mark.parametrize(("trains", "limit_mib"), [(False, 2048), (True, 6144)], ids=["inference", "training"])
def test_65536_tokens_fit_in_one_call(trains: bool, limit_mib: int):
    found = peak(65_536, SEQUENCE, trains=trains, hidden_size=256, num_hidden_layers=6, num_sampled_tokens=256)
    print(found)
    assert found["growth_mib"] < limit_mib


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak from /proc, which only Linux has")
def test_a_graph_of_200_000_nodes_and_two_million_edges_fits_in_one_pass():
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_sampled_tokens": 128}
    peaks = {nodes: peak(nodes, GRAPH, **sizes) for nodes in (50_000, 200_000)}
    print(peaks)
    assert peaks[200_000]["growth_mib"] < 6144
    assert peaks[200_000]["growth_mib"] <= 4.4 * peaks[50_000]["growth_mib"]
