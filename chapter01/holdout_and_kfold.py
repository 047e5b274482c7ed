"""Hold-out validation (train/val/test) beside K-fold, for a Keras network inside scikit-learn.

Book: chapter 1, "Building datasets for deep learning". Data: Breast Cancer Wisconsin (Diagnostic),
569 rows, 30 features, two classes; it comes with scikit-learn, so nothing is downloaded.

    python chapter01/holdout_and_kfold.py         # about 20 s on 2 CPU cores

Expect: test accuracy 0.96 to 0.98 on 57 rows, with a standard error of 0.02; 5-fold 0.97 to 0.98;
logistic regression does as well. Also runs under KERAS_BACKEND=jax.
"""

import argparse
import functools
import json
import logging
import os
import platform
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # fewer start-up notes from TensorFlow

import keras
import matplotlib

matplotlib.use("Agg")  # write files, open no window
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
from tqdm import tqdm

RUNS_DIR = Path(__file__).resolve().parent.parent / "runs" / "chapter01"


def load_data():
    """(X, y): X (569, 30) float64, measurements of cell nuclei in their own units (pixels, pixels²,
    ratios); y (569,) int, 1 for the 357 benign rows and 0 for the 212 malignant ones.
    """
    return load_breast_cancer(return_X_y=True)


def split_data(X, y, fractions=(0.8, 0.1, 0.1), seed=0, stratify=True):
    """Split the rows at random into the book's dict of arrays: train_X, train_y, val_X, …, test_y.

    With `stratify` every part has the whole set's share of each class. Parts are disjoint and use
    every row once; val and test are rounded to whole rows, train is the rest.
    Raises ValueError for fractions that are not three positive numbers with the sum 1, or when a
    part has no row (with `stratify`: fewer rows than there are classes).
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions {fractions} are not three positive numbers with the sum 1")
    n_val, n_test = (round(len(X) * fraction) for fraction in fractions[1:])
    rows = np.arange(len(X))
    for part, size in (("test", n_test), ("val", n_val)):
        if size == 0 or size >= len(rows):
            raise ValueError(f"{len(X)} rows are too few for {fractions}: {size} rows in {part}")
    rest, test = train_test_split(
        rows, test_size=n_test, random_state=seed, stratify=y if stratify else None
    )
    train, val = train_test_split(
        rest, test_size=n_val, random_state=seed, stratify=y[rest] if stratify else None
    )
    data = {}
    for part, chosen in (("train", train), ("val", val), ("test", test)):
        data[f"{part}_X"], data[f"{part}_y"] = X[chosen], y[chosen]
    return data


def standard_error(accuracy, rows):
    """How far, typically, an accuracy measured on so many rows is from the true one (binomial).

    It is 0 for an accuracy of 0 or 1, where it says nothing.
    """
    return float(np.sqrt(accuracy * (1 - accuracy) / rows))


def build_network(X, y, hidden=16, learning_rate=0.003):
    """A compiled classifier for X (m, features) and one-hot y (m, classes)."""
    inputs = keras.Input((X.shape[1],), name="input")
    x = layers.Dense(hidden, activation="relu", name="hidden1")(inputs)
    outputs = layers.Dense(y.shape[1], activation="softmax", name="final")(x)
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
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


def measure_spread(X, y, fractions, splits, seed):
    """Mean and standard deviation of the test accuracy of logistic regression over many splits."""
    accuracy = []
    for i in range(splits):
        data = split_data(X, y, fractions, seed + i)
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(data["train_X"], data["train_y"])
        accuracy.append(model.score(data["test_X"], data["test_y"]))
    return float(np.mean(accuracy)), float(np.std(accuracy))


def train_holdout(data, epochs):
    """Train on train, choose the epoch on val, and only then look at test: metrics and history."""
    scaler = StandardScaler().fit(data["train_X"])
    X = {part: scaler.transform(data[f"{part}_X"]) for part in ("train", "val", "test")}
    y = {part: keras.utils.to_categorical(data[f"{part}_y"], 2) for part in X}
    model = build_network(X["train"], y["train"])
    best = keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    history = model.fit(
        X["train"],
        y["train"],
        validation_data=(X["val"], y["val"]),
        epochs=epochs,
        callbacks=[best],
        verbose=0,
    ).history
    scores = {part: model.evaluate(X[part], y[part], verbose=0, return_dict=True) for part in X}
    return scores, int(np.argmin(history["val_loss"])) + 1, model.count_params()


def plot(path, folds, holdout, spread):
    """Left: standard error by test rows, with measured spreads; right: accuracy fold by fold."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    rows = np.logspace(0.5, 5.5, 100)
    left.loglog(rows, np.sqrt(0.98 * 0.02 / rows), label="√(p(1 - p)/rows), p = 0.98")
    for name, (n, deviation) in spread.items():
        left.loglog(n, deviation, "o", label=f"measured, {name}: {n} test rows")
    left.set(xlabel="rows in the test set", ylabel="standard error of the accuracy")
    for position, accuracy in enumerate(folds.values()):
        right.plot(np.full(len(accuracy), position), accuracy, "o", alpha=0.5)
        right.errorbar(position + 0.15, accuracy.mean(), accuracy.std(), fmt="s", color="black")
    right.errorbar(len(folds), holdout[0], holdout[1], fmt="s", color="black")
    names = [name.replace(", ", "\n") for name in folds]
    right.set_xticks(range(len(folds) + 1), [*names, "network\nhold-out"], fontsize=8)
    right.set(ylabel="accuracy", title="folds, mean ± std; hold-out ± standard error")
    left.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.error = fail

    def at_least(minimum):
        def convert(text):
            if not text.isdecimal() or int(text) < minimum:
                raise argparse.ArgumentTypeError(f"{text} is not a whole number >= {minimum}")
            return int(text)

        return convert

    run_dir = RUNS_DIR / "holdout_and_kfold"
    parser.add_argument("--epochs", type=at_least(1), default=15, help="of each training")
    parser.add_argument("--folds", type=at_least(2), default=5, help="K of K-fold, 2 to 212")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of splits, folds and weights")
    parser.add_argument(
        "--run-dir", type=Path, default=run_dir, help="default: runs/chapter01/holdout_and_kfold"
    )
    args = parser.parse_args()
    if args.folds > 212:
        fail("--folds must leave a row of the smaller class for each fold: at most 212")
    if args.seed > 2**32 - 101:
        fail("--seed must be below 2**32 - 100: scikit-learn and NumPy take no larger one")
    return args


def fail(message):
    """One line on stderr and exit status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def main():
    args, started = parse_arguments(), time.time()
    try:
        args.run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        fail(f"--run-dir cannot be made: {reason}")
    # Every fold builds a network of its own; that TensorFlow traces each anew is as it should be.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    backend = keras.backend.backend()
    device = ", ".join(keras.distribution.list_devices())
    print(f"device: {device} (Keras {keras.__version__} on {backend})")
    keras.utils.set_random_seed(args.seed)
    X, y = load_data()

    data = split_data(X, y, seed=args.seed)
    scores, best_epoch, parameters = train_holdout(data, args.epochs)
    holdout = scores["test"]["accuracy"]
    error = standard_error(holdout, len(data["test_y"]))
    baseline = make_pipeline(StandardScaler(), LogisticRegression())
    baseline.fit(data["train_X"], data["train_y"])
    baseline_holdout = float(baseline.score(data["test_X"], data["test_y"]))
    majority = float(max(np.bincount(data["test_y"])) / len(data["test_y"]))
    parts = ", ".join(f"{len(data[f'{part}_y'])} {part}" for part in scores)
    print(f"hold-out 80/10/10 ({parts} rows), best of {args.epochs} epochs: {best_epoch}")
    print(f"  network              test {holdout:.3f} ± {error:.3f}")
    print(f"  logistic regression  test {baseline_holdout:.3f}; majority class {majority:.3f}")

    print(f"{args.folds}-fold, mean ± std over the folds")
    shuffled = {"n_splits": args.folds, "shuffle": True, "random_state": args.seed}
    splitters = {"K-fold": KFold(**shuffled), "stratified": StratifiedKFold(**shuffled)}
    accuracy = {}
    for name, splitter in tqdm(splitters.items(), leave=False, unit="splitter"):
        accuracy[f"network, {name}"] = cross_validate_network(X, y, splitter, args.epochs)
        scored = cross_validate(baseline, X, y, cv=splitter)
        accuracy[f"logistic, {name}"] = scored["test_score"]
    for name, folds in accuracy.items():
        print(f"  {name:20} {folds.mean():.3f} ± {folds.std():.3f}")

    print("how exact is a measured accuracy of 0.97? (standard error)")
    print(f"{'all rows':>12}{'80/10/10':>20}{'98/1/1':>20}")
    for total in (569, 10_000, 100_000, 10_000_000):
        sizes = round(total * 0.1), round(total * 0.01)
        cells = [f"{rows:,}: ± {standard_error(0.97, rows):.4f}" for rows in sizes]
        print(f"{total:12,}{cells[0]:>20}{cells[1]:>20}")
    spread = {}
    for name, fractions in (("80/10/10", (0.8, 0.1, 0.1)), ("98/1/1", (0.98, 0.01, 0.01))):
        mean, deviation = measure_spread(X, y, fractions, 100, args.seed)
        spread[name] = round(len(X) * fractions[2]), deviation
        expected = standard_error(mean, spread[name][0])
        print(f"measured over 100 splits {name}: ± {deviation:.4f}, by the formula {expected:.4f}")
    leaking, honest = measure_leak(args.seed)
    print(f"noise, features chosen on all rows: {leaking:.2f}; inside each fold: {honest:.2f}")

    plot(args.run_dir / "holdout_and_kfold.png", accuracy, (holdout, error), spread)
    metrics = {
        "script": "chapter01/holdout_and_kfold.py",
        "data": "breast cancer (scikit-learn), 569 rows",
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": backend,
            "backend_version": sys.modules[backend].__version__,
        },
        "device": device,
        "epochs": args.epochs,
        "best_epoch": best_epoch,
        "seconds": round(time.time() - started, 1),
        "parameters": parameters,
        **scores,
        "baselines": {
            "logistic_regression": {"accuracy": baseline_holdout},
            "majority_class": {"accuracy": majority},
        },
        "test_standard_error": error,
        "k_fold": {
            name: {"mean": float(folds.mean()), "std": float(folds.std())}
            for name, folds in accuracy.items()
        },
        "noise": {"leaking": float(leaking), "honest": float(honest)},
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for name in ("metrics.json", "holdout_and_kfold.png"):
        print(f"wrote {args.run_dir / name}")


if __name__ == "__main__":
    main()
