"""Hold-out validation (train/val/test) beside K-fold, for a Keras network inside scikit-learn.

Book: chapter 1, "Building datasets for deep learning". Data: Breast Cancer Wisconsin (Diagnostic),
569 rows, 30 measurements of cell nuclei, benign (1) or malignant (0); it comes with scikit-learn.

    python chapter01/holdout_and_kfold.py

Expect: test accuracy 0.96 to 0.98 on 57 rows, with a standard error of 0.02; 5-fold 0.97 to 0.98;
logistic regression does as well.
"""

import argparse
import json
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import layers
from keras.wrappers import SKLearnClassifier
from sklearn.datasets import load_breast_cancer
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def split_data(X, y, share=0.1, seed=0):
    """Split at random into the book's dict of arrays: train_X, train_y, val_X, val_y, test_X, …

    val and test get a `share` of the rows each: 0.1 makes 80/10/10, 0.01 makes 98/1/1. Every part
    has the whole set's proportions of the classes.
    """
    rows, data = round(len(X) * share), {}
    for part in ("test", "val"):
        X, data[f"{part}_X"], y, data[f"{part}_y"] = train_test_split(
            X, y, test_size=rows, random_state=seed, stratify=y
        )
    return data | {"train_X": X, "train_y": y}


def standard_error(accuracy, rows):
    """How far, typically, an accuracy measured on so many rows is from the true one (binomial)."""
    return np.sqrt(accuracy * (1 - accuracy) / rows)


def build_network(X, y):
    """A compiled classifier for X (m, features) and one-hot y (m, classes)."""
    inputs = keras.Input((X.shape[1],), name="input")
    x = layers.Dense(16, activation="relu", name="hidden1")(inputs)
    outputs = layers.Dense(y.shape[1], activation="softmax", name="final")(x)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.003), "categorical_crossentropy", metrics=["accuracy"])
    return model


def make_network():
    """Scaler and network as one estimator: each fold's scaler sees its training rows alone."""
    return make_pipeline(StandardScaler(), SKLearnClassifier(build_network))


def cross_validate_network(X, y, folds, epochs):
    """Accuracy of the network on every fold of `folds`, a scikit-learn splitter: (k,) floats."""
    # Not SKLearnClassifier(fit_kwargs={"epochs": …}): clone(), which makes a fresh network for
    # each fold, loses fit_kwargs (Keras 3.15), and every fold trains for one epoch in silence.
    params = {"sklearnclassifier__epochs": epochs}
    return cross_val_score(make_network(), X, y, cv=folds, params=params)


def measure_leak(seed, rows=100, features=2000, kept=20):
    """Accuracy on noise (truly 0.5), features chosen from all rows (a leak), inside each fold."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(rows, features)), rng.permutation(np.arange(rows) % 2)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    choice, model = SelectKBest(k=kept), LogisticRegression()
    leaking = cross_val_score(model, choice.fit_transform(X, y), y, cv=folds)
    honest = cross_val_score(make_pipeline(choice, model), X, y, cv=folds)
    return leaking.mean(), honest.mean()


def train_holdout(data, epochs):
    """Train on train, choose the epoch on val, and only then look at test: scores, best epoch."""
    scaler = StandardScaler().fit(data["train_X"])
    X = {part: scaler.transform(data[f"{part}_X"]) for part in ("train", "val", "test")}
    y = {part: keras.utils.to_categorical(data[f"{part}_y"], 2) for part in X}
    model = build_network(X["train"], y["train"])
    best = keras.callbacks.EarlyStopping(patience=epochs, restore_best_weights=True)
    validation = {"validation_data": (X["val"], y["val"]), "callbacks": [best]}
    # Seeded arrays would come in one order in every epoch on TensorFlow, as they do in the folds.
    rows = tf.data.Dataset.from_tensor_slices((X["train"], y["train"]))
    rows = rows.shuffle(len(rows), seed=0).batch(32)
    model.fit(rows, epochs=epochs, shuffle=False, **validation)
    scores = {part: model.evaluate(X[part], y[part], return_dict=True) for part in X}
    return scores, best.best_epoch + 1


def plot_splits(path):
    """Which rows serve for what in five-fold and in hold-out validation, the book's figure."""
    fig, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
    names = [*(f"fold {i + 1}" for i in range(5)), "hold-out"]
    ax.barh(names, 5, label="train")
    ax.barh(names, [1, 1, 1, 1, 1, 0.5], left=[0, 1, 2, 3, 4, 4.5], label="test")
    ax.barh("hold-out", 0.5, left=4, label="val (chooses the epoch)")
    ax.set(xticks=[], ylim=(-1.6, 5.6))
    ax.legend(ncol=3, loc="lower center")
    fig.savefig(path, dpi=60)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15, help="of each training, default: 15")
    parser.add_argument("--seed", type=int, default=0, help="of splits, folds and weights")
    parser.add_argument("--run-dir", type=Path, default="runs/holdout_and_kfold", help="for files")
    args = parser.parse_args()
    try:
        if args.epochs < 1:
            raise ValueError("--epochs begins at 1")
        keras.utils.set_random_seed(args.seed)
        args.run_dir.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    keras.config.disable_interactive_logging()  # no progress bars
    tf.get_logger().setLevel("ERROR")  # it warns of each new network's compilation
    X, y = load_breast_cancer(return_X_y=True)

    data = split_data(X, y, seed=args.seed)
    test_X, test_y = data["test_X"], data["test_y"]
    scores, best_epoch = train_holdout(data, args.epochs)
    error = standard_error(scores["test"]["accuracy"], len(test_y))
    baseline = make_pipeline(StandardScaler(), LogisticRegression())
    logistic = baseline.fit(data["train_X"], data["train_y"]).score(test_X, test_y)
    print(f"hold-out 80/10/10, {len(test_y)} test rows, best of {args.epochs} epochs: {best_epoch}")
    print(f"  network              test {scores['test']['accuracy']:.3f} ± {error:.3f}")
    print(f"  logistic regression  test {logistic:.3f}; larger class {test_y.mean():.3f}")

    print("5-fold, mean ± standard deviation over the folds")
    accuracy, k_fold = {}, {}
    for kind, splitter in (("K-fold", KFold), ("stratified", StratifiedKFold)):
        folds = splitter(5, shuffle=True, random_state=args.seed)
        accuracy[f"network, {kind}"] = cross_validate_network(X, y, folds, args.epochs)
        accuracy[f"logistic, {kind}"] = cross_val_score(baseline, X, y, cv=folds)
    for name, scores_of_folds in accuracy.items():
        k_fold[name] = {"mean": scores_of_folds.mean(), "std": scores_of_folds.std(ddof=1)}
        print("  {:20} {:.3f} ± {:.3f}".format(name, *k_fold[name].values()))

    print("how exact is a measured accuracy of 0.97? (standard error)")
    for total in (569, 10_000, 100_000, 10_000_000):
        sizes = {"80/10/10": round(total * 0.1), "98/1/1": round(total * 0.01)}
        cells = [f"{n}: ± {standard_error(0.97, m):.4f} ({m:,} rows)" for n, m in sizes.items()]
        print(f"{total:12,} rows, {', '.join(cells)}")
    leaking, honest = measure_leak(args.seed)
    print(f"noise, features chosen on all rows: {leaking:.2f}; inside each fold: {honest:.2f}")

    plot_splits(args.run_dir / "holdout_and_kfold.png")
    metrics = {"script": "holdout_and_kfold", "seed": args.seed, "epochs": args.epochs, **scores}
    metrics |= {"best_epoch": best_epoch, "test_standard_error": error, "k_fold": k_fold}
    metrics["baselines"] = {"logistic_regression": {"accuracy": logistic}}
    metrics["noise"] = {"leaking": leaking, "honest": honest}
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Metrics and picture are in {args.run_dir}")


if __name__ == "__main__":
    main()
