"""Hold-out validation (train/val/test) beside K-fold, for a Keras network inside scikit-learn.

Book: chapter 1, "Building datasets for deep learning". Data: Breast Cancer Wisconsin (Diagnostic),
569 rows, 30 features, two classes; it comes with scikit-learn, so nothing is downloaded.

    python chapter01/holdout_and_kfold.py

Expect: test accuracy 0.96 to 0.98 on 57 rows, with a standard error of 0.02; 5-fold 0.97 to 0.98;
logistic regression does as well.
"""

import argparse
import functools
import json
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers
from keras.wrappers import SKLearnClassifier
from sklearn.datasets import load_breast_cancer
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold, cross_validate, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def load_data():
    """X (569, 30) float64, measurements of cell nuclei; y (569,), 1 for benign, 0 for malignant."""
    return load_breast_cancer(return_X_y=True)


def split_data(X, y, share=0.1, seed=0):
    """Split at random into the book's dict of arrays: train_X, train_y, val_X, val_y, test_X, …

    val and test get a `share` of the rows each: 0.1 makes 80/10/10, 0.01 makes 98/1/1. Every part
    has the whole set's proportions of the classes. Raises ValueError where it cannot.
    """
    rows, data = round(len(X) * share), {}
    for part in ("test", "val"):
        X, data[f"{part}_X"], y, data[f"{part}_y"] = train_test_split(
            X, y, test_size=rows, random_state=seed, stratify=y
        )
    return data | {"train_X": X, "train_y": y}


def standard_error(accuracy, rows):
    """How far, typically, an accuracy measured on so many rows is from the true one (binomial).

    It is 0 for an accuracy of 0 or 1, where it says nothing.
    """
    return np.sqrt(accuracy * (1 - accuracy) / rows)


def build_network(X, y):
    """A compiled classifier for X (m, features) and one-hot y (m, classes)."""
    inputs = keras.Input((X.shape[1],), name="input")
    x = layers.Dense(16, activation="relu", name="hidden1")(inputs)
    outputs = layers.Dense(y.shape[1], activation="softmax", name="final")(x)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.003), "categorical_crossentropy", metrics=["accuracy"])
    # The wrapper calls predict() without arguments: this is the place to turn its bar off.
    model.predict = functools.partial(model.predict, verbose=0)
    return model


def make_network():
    """Scaler and network as one estimator.

    The scaler belongs inside: scikit-learn then fits it on each fold's training rows alone. Fitted
    beforehand on all rows, it tells the training about the rows it will be tested on.
    """
    return make_pipeline(StandardScaler(), SKLearnClassifier(build_network))


def cross_validate_network(X, y, folds, epochs):
    """Accuracy of the network on every fold of `folds`, a scikit-learn splitter: (k,) floats."""
    # Not SKLearnClassifier(fit_kwargs={"epochs": …}): clone(), which makes a fresh network for
    # each fold, loses fit_kwargs (Keras 3.15), and every fold trains for one epoch in silence.
    params = {"sklearnclassifier__epochs": epochs, "sklearnclassifier__verbose": 0}
    return cross_validate(make_network(), X, y, cv=folds, params=params)["test_score"]


def measure_leak(seed, rows=100, features=2000, kept=20):
    """Cross-validated accuracy on pure noise, features chosen (from all rows, inside each fold).

    The true accuracy is 0.5 for both: what the first has on top is the leak.
    """
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(rows, features)), rng.permutation(np.arange(rows) % 2)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    chosen = SelectKBest(k=kept).fit_transform(X, y)
    leaking = cross_validate(LogisticRegression(), chosen, y, cv=folds)
    honest = make_pipeline(SelectKBest(k=kept), LogisticRegression())
    honest = cross_validate(honest, X, y, cv=folds)
    return leaking["test_score"].mean(), honest["test_score"].mean()


def train_holdout(data, epochs):
    """Train on train, choose the epoch on val, and only then look at test: scores, best epoch."""
    scaler = StandardScaler().fit(data["train_X"])
    X = {part: scaler.transform(data[f"{part}_X"]) for part in ("train", "val", "test")}
    y = {part: keras.utils.to_categorical(data[f"{part}_y"], 2) for part in X}
    model = build_network(X["train"], y["train"])
    best = keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    validation = X["val"], y["val"]
    fit = {"validation_data": validation, "epochs": epochs, "callbacks": [best], "verbose": 0}
    history = model.fit(X["train"], y["train"], **fit).history
    scores = {part: model.evaluate(X[part], y[part], verbose=0, return_dict=True) for part in X}
    return scores, int(np.argmin(history["val_loss"])) + 1


def plot(path, accuracy, holdout):
    """The splits as bars; the standard error by test rows; the accuracy fold by fold."""
    fig, (splits, errors, folds) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    parts = {"train": "C0", "val (chooses the epoch)": "C2", "test": "C1"}
    bars = [(row, 0, 5, "train") for row in range(6)]
    bars += [(row, row, 1, "test") for row in range(5)]  # five folds, and the hold-out above them
    bars += [(5, 4, 0.5, "val (chooses the epoch)"), (5, 4.5, 0.5, "test")]
    for row, left, width, part in bars:
        splits.barh(row, width, left=left, color=parts[part])
    splits.set_yticks(range(6), [*(f"fold {i + 1}" for i in range(5)), "hold-out"])
    splits.set(title="five-fold and hold-out: which rows for what", xticks=[], ylim=(-1.6, 5.6))
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in parts.values()]
    splits.legend(handles, parts, fontsize=8, ncol=3, loc="lower center")
    rows = np.logspace(0.5, 6, 100)
    errors.loglog(rows, standard_error(0.97, rows))
    for name, n in (("10 % of 569 rows", 57), ("1 % of 569", 6), ("1 % of 10,000,000", 100_000)):
        errors.plot(n, standard_error(0.97, n), "o", label=f"{name}: {n:,}")
    errors.set(xlabel="rows in the test set", ylabel="standard error of an accuracy of 0.97")
    errors.set_title("√(p(1 - p)/rows)")
    errors.legend(fontsize=8)
    for position, scores in enumerate(accuracy.values()):
        folds.plot(np.full(len(scores), position), scores, "o", alpha=0.5)
        folds.errorbar(position + 0.15, scores.mean(), scores.std(ddof=1), fmt="s", color="black")
    folds.errorbar(len(accuracy), *holdout, fmt="s", color="black")
    names = [*(name.replace(", ", "\n") for name in accuracy), "network\nhold-out"]
    folds.set_xticks(range(len(names)), names, fontsize=8)
    folds.set(ylabel="accuracy", title="mean of folds ± deviation, hold-out ± error")
    for ax in (errors, folds):
        ax.grid(alpha=0.3)
    fig.savefig(path, dpi=60)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15, help="of each training, default: 15")
    parser.add_argument("--seed", type=int, default=0, help="of splits, folds and weights")
    parser.add_argument("--run-dir", type=Path, default="runs/holdout_and_kfold", help="for files")
    args = parser.parse_args()
    if args.epochs < 1 or not 0 <= args.seed < 2**32 - 100:
        parser.error("--epochs begins at 1, --seed at 0")
    try:
        args.run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--run-dir: {error}")
    keras.utils.set_random_seed(args.seed)
    X, y = load_data()

    data = split_data(X, y, seed=args.seed)
    scores, best_epoch = train_holdout(data, args.epochs)
    error = standard_error(scores["test"]["accuracy"], len(data["test_y"]))
    baseline = make_pipeline(StandardScaler(), LogisticRegression())
    baseline.fit(data["train_X"], data["train_y"])
    logistic = baseline.score(data["test_X"], data["test_y"])
    parts = ", ".join(f"{len(data[f'{part}_y'])} {part}" for part in scores)
    print(f"hold-out 80/10/10 ({parts} rows), best of {args.epochs} epochs: {best_epoch}")
    print(f"  network              test {scores['test']['accuracy']:.3f} ± {error:.3f}")
    print(f"  logistic regression  test {logistic:.3f}; larger class {data['test_y'].mean():.3f}")

    print("5-fold, mean ± standard deviation over the folds")
    accuracy = {}
    for name, splitter in (("K-fold", KFold), ("stratified", StratifiedKFold)):
        folds = splitter(5, shuffle=True, random_state=args.seed)
        accuracy[f"network, {name}"] = cross_validate_network(X, y, folds, args.epochs)
        accuracy[f"logistic, {name}"] = cross_validate(baseline, X, y, cv=folds)["test_score"]
    k_fold = {n: {"mean": a.mean(), "std": a.std(ddof=1)} for n, a in accuracy.items()}
    for name, fold in k_fold.items():
        print("  {:20} {:.3f} ± {:.3f}".format(name, *fold.values()))

    print("how exact is a measured accuracy of 0.97? (standard error)")
    for total in (569, 10_000, 100_000, 10_000_000):
        sizes = {"80/10/10": round(total * 0.1), "98/1/1": round(total * 0.01)}
        cells = [f"{n}: ± {standard_error(0.97, m):.4f} ({m:,} rows)" for n, m in sizes.items()]
        print(f"{total:12,} rows, {', '.join(cells)}")
    leaking, honest = measure_leak(args.seed)
    print(f"noise, features chosen on all rows: {leaking:.2f}; inside each fold: {honest:.2f}")

    holdout = scores["test"]["accuracy"], error
    plot(args.run_dir / "holdout_and_kfold.png", accuracy, holdout)
    metrics = {"script": "holdout_and_kfold", "seed": args.seed, "epochs": args.epochs, **scores}
    metrics |= {"best_epoch": best_epoch, "test_standard_error": float(error), "k_fold": k_fold}
    metrics["baselines"] = {"logistic_regression": {"accuracy": logistic}}
    metrics["noise"] = {"leaking": leaking, "honest": honest}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Metrics and picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
