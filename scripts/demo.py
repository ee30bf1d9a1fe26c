"""Train a classifier of digits drawn as point clouds, save it, load it again, and draw what it looked at."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

RECIPE = Path(__file__).resolve().parent.parent / "configuration" / "digits" / "sft.yaml"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/demo"), help="default: %(default)s")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.name=value", help="settings that replace those of the digits recipe"
    )
    return parser.parse_intermixed_args()


def main() -> int:
    arguments = parse_arguments()
    import torch
    from transformers import AutoProcessor
    from transformers.utils import logging

    import lab  # noqa: F401 (benchmark data sets and baselines by name)
    from lab.figures import plot_sampled_tokens
    from modeling_sft import AutoModelForPointCloudClassification
    from modeling_sft.training import evaluate, get_task, load_recipe, train

    logging.disable_progress_bar()  # of loading and saving; training keeps its own
    model_dir = arguments.output_dir / "model"
    recipe = load_recipe(RECIPE, arguments.overrides)
    start = time.perf_counter()
    log = train(recipe, model_dir, overwrite=True)
    print(f"trained {log['num_parameters']:,} parameters in {time.perf_counter() - start:.0f} s")
    report = evaluate(model_dir, rotations=["none"])
    accuracy = report["results"]["none"]["accuracy"]
    print(f"test accuracy on {report['num_examples']} digits: {100 * accuracy:.1f} %")

    task = get_task(recipe.task)
    model = task.model_class.from_pretrained(model_dir).eval()
    reloaded = AutoModelForPointCloudClassification.from_pretrained(model_dir).eval()
    processor = AutoProcessor.from_pretrained(model_dir)
    rows = task.load_rows(recipe, None, "test")
    clouds = [rows[index] for index in range(16)]
    batch = processor([row["points"] for row in clouds], point_features=[row["point_features"] for row in clouds])
    with torch.no_grad():
        output = model(**batch, output_sampled_tokens=True)
        # To rounding: weights mapped from a file lie elsewhere in memory, where a processor may sum in another order.
        same = torch.allclose(output.logits, reloaded(**batch).logits, rtol=1e-4, atol=1e-4)
    print(f"logits after saving and loading by AutoModelForPointCloudClassification the same: {same}")

    curves, sample = arguments.output_dir / "training_curves.png", arguments.output_dir / "sampled_points.png"
    shutil.copyfile(model_dir / "curves.png", curves)
    num_points = int(batch["attention_mask"][0].sum())
    predicted = model.config.id2label[int(output.logits[0].argmax())]
    label = rows.features["label"].int2str(int(clouds[0]["label"]))
    plot_sampled_tokens(
        batch["points"][0, :num_points].numpy(),
        [layer[0].numpy() for layer in output.sampled_tokens],
        sample,
        title=f"a {label}, classified as {predicted}: points that each layer sampled",
    )
    print(f"pictures: {curves}, {sample}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
