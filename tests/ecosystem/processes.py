"""The processes of test_distributed.py: `torchrun --nproc_per_node 2 -m ecosystem.processes FOLDER`."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from ecosystem.cases import KINDS, make_case, make_case_with_missing_labels, weights
from modeling_sft.training.processes import leave_together
from modeling_sft.training.trainer import SFTTrainer

STEP = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0, "max_steps": 2}


def train_in_parallel(kind: str, folder: Path) -> None:
    """Two steps of Trainer on half of the examples in each process."""
    case = make_case(kind, torch.float64, per_token=True)
    trainer = case.trainer(folder, per_device_train_batch_size=6, **STEP)
    assert trainer.args.world_size == 2
    trainer.train()
    if trainer.is_world_process_zero():
        torch.save(weights(case.model), folder / f"{kind}-trained.pt")


def train_with_missing_labels(folder: Path) -> None:
    """Two steps of SFTTrainer on half of the examples in each process, whose labels are mostly missing."""
    case = make_case_with_missing_labels("sequence", "regression")
    trainer = case.trainer(folder, trainer_class=SFTTrainer, per_device_train_batch_size=6, **STEP)
    trainer.train()
    if trainer.is_world_process_zero():
        torch.save(weights(case.model), folder / "missing-trained.pt")


def differentiate_sharded(kind: str, folder: Path) -> None:
    """Gradients of a model whose layers are sharded over the processes."""
    case, rank = make_case(kind, torch.float64, per_token=True), dist.get_rank()
    mesh = init_device_mesh("cpu", (2,))
    for module in case.model.modules():
        if type(module).__name__ in case.model._no_split_modules:
            fully_shard(module, mesh=mesh)
    fully_shard(case.model, mesh=mesh)
    num_labels = sum(int((row["labels"] >= 0).sum()) for row in case.rows)
    # FSDP averages over the processes.
    case.model(**case.collate(case.rows[rank::2]), num_items_in_batch=num_labels / 2).loss.backward()
    own = sum(parameter.to_local().numel() for parameter in case.model.parameters())
    gradients = {name: parameter.grad.full_tensor() for name, parameter in case.model.named_parameters()}
    if rank == 0:
        torch.save((own, gradients), folder / f"{kind}-sharded.pt")


if __name__ == "__main__":
    for each in KINDS:
        train_in_parallel(each, Path(sys.argv[1]))
        differentiate_sharded(each, Path(sys.argv[1]))
    train_with_missing_labels(Path(sys.argv[1]))
    leave_together()
    dist.destroy_process_group()
