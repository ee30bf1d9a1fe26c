"""Forests, boosted trees and linear machines of scikit-learn on dense features, for all targets of graphs."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling_sft.hub.optional import import_optional
from modeling_sft.training.estimators import Scores, TrainingData

SVM_STRENGTHS = (1.0, 10.0)
"""Inverse strengths of regularization that linear machines are tried with."""


def fit_scores(method: str, task: str, data: TrainingData, seed: int, strength: float = 1.0) -> Scores:
    """Fit a method to dense features, with one model for each label or number, on the rows that have it.

    Args:
        method: `"forest"` (of 100 trees), `"boosting"` (80 rounds, a tenth of the features for each split) or, for
            classes, `"svm"`, linear on features of norm 1, which is the normalised kernel of counts.
        task: name of the task, `"graph-classification"`, `"graph-multi-label-classification"` or `"graph-regression"`.
        data: features `(n, F)` float32 and targets.
        seed: of trees and machines.
        strength: inverse strength of regularization of the linear machine.

    Returns:
        A function from features `(m, F)` to scores `(m, C)`.
    """
    used = data.features.any(axis=0)
    features = data.features[:, used]
    if task == "graph-classification":
        model = _classifier(method, seed, strength).fit(features, data.targets)
        return lambda rows: class_scores(model, rows[:, used], data.num_labels)
    make = _regressor if task == "graph-regression" else _classifier
    models = []
    for column in data.targets.T:
        known = ~np.isnan(column)
        models.append(make(method, seed).fit(features[known], column[known]))
    score = (lambda model, rows: model.predict(rows)) if task == "graph-regression" else _probability
    return lambda rows: np.stack([score(model, rows[:, used]) for model in models], axis=-1)


def class_scores(model: Any, features: Any, num_labels: int) -> NDArray[np.float64]:
    """Scores `(n, num_labels)` of a classifier: probabilities where it has some, else distances from its planes.

    A class without a training row has the lowest score of all.
    """
    if hasattr(model, "predict_proba"):
        found = model.predict_proba(features)
    else:
        found = model.decision_function(features)
        if found.ndim == 1:
            found = np.stack([-found, found], axis=-1)
    scores = np.full((len(found), num_labels), found.min() - 1.0)
    scores[:, model.classes_.astype(int)] = found
    return scores


def _probability(model: Any, features: NDArray[Any]) -> NDArray[np.float64]:
    """The probability of a label; 0 or 1 for a label that all training rows agree on."""
    return model.predict_proba(features) @ model.classes_


def _classifier(method: str, seed: int, strength: float = 1.0) -> Any:
    if method == "svm":
        linear: Callable[..., Any] = import_optional("sklearn.svm", "graphs").LinearSVC
        normalizer = import_optional("sklearn.preprocessing", "graphs").Normalizer()
        model = linear(C=strength, random_state=seed)
        return import_optional("sklearn.pipeline", "graphs").make_pipeline(normalizer, model)
    ensemble = import_optional("sklearn.ensemble", "graphs")
    if method == "forest":
        return ensemble.RandomForestClassifier(100, n_jobs=1, random_state=seed)
    return ensemble.HistGradientBoostingClassifier(**_boosting(seed))


def _regressor(method: str, seed: int) -> Any:
    ensemble = import_optional("sklearn.ensemble", "graphs")
    if method == "forest":
        return ensemble.ExtraTreesRegressor(100, max_features=0.3, n_jobs=1, random_state=seed)
    return ensemble.HistGradientBoostingRegressor(**_boosting(seed))


def _boosting(seed: int) -> dict[str, Any]:
    # Counts are small, so few bins lose nothing, and histograms are as much faster.
    settings = {"max_iter": 80, "max_bins": 32, "max_features": 0.1, "min_samples_leaf": 10, "early_stopping": False}
    return settings | {"random_state": seed}
