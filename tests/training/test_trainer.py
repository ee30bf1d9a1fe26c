import re

import pytest
import torch
import torch.nn.functional as F

from configurations import tiny_graph_config
from modeling_sft import SFTForGraphClassification
from modeling_sft.training import activation_checkpointing_arguments, build_training_arguments, get_task
from modeling_sft.training.run import _build_trainer
from modeling_sft.training.trainer import SFTTrainer, is_scorer_parameter
from tiny_recipes import tiny_graph_recipe, tiny_recipe


@pytest.fixture
def make_trainer(tmp_path):
    def make(*overrides, rows=16):
        recipe = tiny_recipe("dataset.validation_fraction=0", "training.eval_strategy=no", *overrides)
        task = get_task(recipe.task)
        data = task.load_rows(recipe, None, "train").select(range(rows))
        torch.manual_seed(0)
        processor = task.build_processor(recipe)
        model = task.build_model(recipe, data, processor)
        return _build_trainer(task, recipe, model, processor, build_training_arguments(recipe, tmp_path), data, None)

    return make


def group_of(trainer, optimizer):
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    return [({names[p] for p in group["params"]}, group) for group in optimizer.param_groups]


def test_every_parameter_is_in_one_group(make_trainer):
    trainer = make_trainer("importance_scorer.learning_rate_multiplier=10", "training.weight_decay=0.1")
    groups = group_of(trainer, trainer.create_optimizer())
    names = [name for group, _ in groups for name in group]
    assert sorted(names) == sorted(name for name, _ in trainer.model.named_parameters())
    assert any(is_scorer_parameter(name) for name in names)
    for group, settings in groups:
        scorer = {is_scorer_parameter(name) for name in group}
        assert len(scorer) == 1
        assert settings["lr"] == pytest.approx(0.1 if scorer == {True} else 0.01)
        for name in group:
            exempt = re.search(r"bias|norm|residual_scale|relation", name) is not None
            assert (settings["weight_decay"] == 0) == exempt, name


def test_without_multiplier_the_groups_are_those_of_trainer(make_trainer):
    assert len(make_trainer().create_optimizer().param_groups) == 2


def test_tables_of_context_hashes_form_groups_of_their_own(tmp_path):
    recipe = tiny_graph_recipe(
        *("task=graph-classification", "dataset.name=smiles_files", "model.context_hash_radius=1"),
        *(
            "training.eval_strategy=no",
            "training.save_strategy=no",
            "training.weight_decay=0.1",
            "training.learning_rate=0.01",
        ),
        "context_hashes={learning_rate_multiplier: 3, adam_beta2: 0.9, weight_decay: 0.5}",
    )
    config = tiny_graph_config(context_hash_radius=1)
    model = SFTForGraphClassification(config)
    arguments = build_training_arguments(recipe, tmp_path)
    trainer = SFTTrainer(model, arguments, context_hashes=recipe.context_hashes)
    tables = {"sft.context_embedding.table.weight", "classifier.counts.weight"}
    found = set()
    for names, settings in group_of(trainer, trainer.create_optimizer()):
        if names & tables:
            found |= names
            assert settings["lr"] == pytest.approx(0.03) and settings["weight_decay"] == 0.5
            assert settings["betas"] == (0.9, 0.9)
        else:
            assert settings["lr"] == pytest.approx(0.01) and settings["betas"] == (0.9, 0.999)
    assert found == tables
    with pytest.raises(ValueError, match="`context_hashes` sets how tables are optimised, and the model has none"):
        plain = SFTForGraphClassification(tiny_graph_config())
        SFTTrainer(plain, arguments, context_hashes=recipe.context_hashes)
    arguments.optim = "sgd"
    with pytest.raises(ValueError, match=r"`context_hashes.adam_beta2` is for Adam"):
        SFTTrainer(model, arguments, context_hashes=recipe.context_hashes).create_optimizer()


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant_with_warmup", "polynomial"])
def test_scheduler_scales_all_groups_alike(make_trainer, schedule):
    trainer = make_trainer(
        "importance_scorer.learning_rate_multiplier=10",
        f"training.lr_scheduler_type={schedule}",
        "training.warmup_steps=3",
    )
    optimizer = trainer.create_optimizer()
    scheduler = trainer.create_scheduler(10, optimizer)
    for _ in range(8):
        optimizer.step()
        scheduler.step()
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == 2
        assert max(rates) == pytest.approx(10 * min(rates))
        assert trainer._get_learning_rate() == min(rates)


def set_gradients(model, scorer_value, value):
    for name, parameter in model.named_parameters():
        parameter.grad = torch.full_like(parameter, scorer_value if is_scorer_parameter(name) else value)


def norms(model):
    gradients = {True: [], False: []}
    for name, parameter in model.named_parameters():
        gradients[is_scorer_parameter(name)].append(parameter.grad.flatten())
    return tuple(torch.cat(gradients[key]).norm().item() for key in (True, False))


@pytest.mark.parametrize(("scorer_value", "value"), [(100.0, 1e-4), (1e-4, 100.0), (100.0, 100.0), (1e-4, 1e-4)])
def test_scorer_and_others_are_clipped_apart(make_trainer, scorer_value, value):
    trainer = make_trainer("importance_scorer.max_grad_norm=0.5", "training.max_grad_norm=2")
    set_gradients(trainer.model, scorer_value, value)
    before_scorer, before_others = norms(trainer.model)
    returned = trainer._clip_grad_norm(trainer.model)
    after_scorer, after_others = norms(trainer.model)
    assert returned.item() == pytest.approx(before_others, rel=1e-4)
    assert after_scorer == pytest.approx(min(before_scorer, 0.5), rel=1e-4)
    assert after_others == pytest.approx(min(before_others, 2), rel=1e-4)


def test_without_own_clipping_the_scorer_counts_with_all_others(make_trainer):
    trainer = make_trainer("training.max_grad_norm=1")
    set_gradients(trainer.model, 100.0, 1e-4)
    trainer._clip_grad_norm(trainer.model)
    after_scorer, after_others = norms(trainer.model)
    assert after_scorer == pytest.approx(1, rel=1e-3)
    assert after_others < 1e-3


def test_own_clipping_needs_clipping_at_all(make_trainer):
    with pytest.raises(ValueError, match="max_grad_norm"):
        make_trainer("importance_scorer.max_grad_norm=1", "training.max_grad_norm=0")


def test_scorer_norm_is_logged(make_trainer):
    trainer = make_trainer("importance_scorer.max_grad_norm=1", "training.max_steps=1")
    trainer.train()
    assert any("scorer_grad_norm" in entry for entry in trainer.state.log_history)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_accumulation_equals_one_big_batch(make_trainer, smoothing):
    results = []
    for batch_size, steps in ((12, 1), (4, 3), (5, 3)):
        trainer = make_trainer(
            f"training.per_device_train_batch_size={batch_size}",
            f"training.gradient_accumulation_steps={steps}",
            "training.max_steps=1",
            "training.optim=sgd",
            "training.learning_rate=0.5",
            "training.max_grad_norm=100",
            "model.sampling_noise=0",
            f"training.label_smoothing_factor={smoothing}",
            rows=12,
        )
        trainer.train()
        loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
        results.append((loss, torch.cat([p.detach().flatten() for p in trainer.model.parameters()])))
    for loss, weights in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-4)
        torch.testing.assert_close(weights, results[0][1], atol=1e-5, rtol=1e-4)


def test_label_smoothing_is_that_of_cross_entropy(make_trainer):
    trainer = make_trainer("training.label_smoothing_factor=0.2", "model.sampling_noise=0")
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    trainer.model.train()
    logits = trainer.model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    expected = F.cross_entropy(logits, batch["labels"], label_smoothing=0.2)
    for count in (None, torch.tensor(6), torch.tensor(24)):
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count)
        scale = 1 if count is None else 6 / int(count)
        torch.testing.assert_close(loss, expected * scale)


def test_label_smoothing_needs_single_labels(make_trainer):
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        make_trainer("training.label_smoothing_factor=0.2", "model.problem_type=regression")


@pytest.mark.parametrize("given", ["activation_checkpointing", "gradient_checkpointing"])
@pytest.mark.parametrize("known", ["activation_checkpointing", "gradient_checkpointing"])
def test_activation_checkpointing_is_named_as_the_installed_version_names_it(given, known):
    known_names = {"gradient_checkpointing", "gradient_checkpointing_kwargs", known, f"{known}_kwargs"}
    arguments = {given: True, f"{given}_kwargs": {"use_reentrant": False}, "learning_rate": 1.0}
    renamed = activation_checkpointing_arguments(arguments, known_names)
    assert renamed == {known: True, f"{known}_kwargs": {"use_reentrant": False}, "learning_rate": 1.0}


def test_activation_checkpointing_trains_to_the_same_weights(make_trainer):
    weights = []
    for value in ("false", "true"):
        trainer = make_trainer(f"training.activation_checkpointing={value}", "training.max_steps=2")
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    torch.testing.assert_close(*weights)
