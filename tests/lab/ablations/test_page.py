"""The committed page of ablations, against the results that it is rendered from and the studies of today."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.ablations import Study, read_results, render_ablations_page
from paths import ROOT

RESULTS = sorted((ROOT / "docs" / "ablations").glob("*.json"))


def test_the_page_is_rendered_from_the_results() -> None:
    studies = [read_results(path) for path in RESULTS]
    assert studies
    figures = {results["study"]: f"figures/ablation-{results['study']}.png" for results in studies}
    page = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert page == render_ablations_page(studies, figures), "run scripts/ablate.py --report docs/ablations/*.json"
    assert all((ROOT / "docs" / figure).is_file() for figure in figures.values())


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_are_of_the_committed_study(path: Path) -> None:
    results = read_results(path)
    study = Study.from_yaml(ROOT / "configuration" / "ablations" / f"{path.stem}.yaml")
    assert results["overrides"] == list(study.overrides) and results["seeds"] == list(study.seeds)
    for name, comparison in results["comparisons"].items():
        committed = {variant.label: list(variant.overrides) for variant in study.comparisons[name].variants}
        assert {label: variant["overrides"] for label, variant in comparison["variants"].items()}.items() <= (
            committed.items()
        )
