"""Train the book's binary classifier: is this second of EEG part of an epileptic seizure?

Book: chapter 4, "Building a binary classifier in Keras".

    python chapter04/dnn_eeg.py                         # the real set, data/eeg/eeg.csv
    python chapter04/dnn_eeg.py --group-by-recording    # whole recordings held out
    python chapter04/dnn_eeg.py --data sample           # simulated stand-in, needs no network
    python chapter04/dnn_eeg.py --data my_eeg.csv       # a CSV file with the same columns

What to expect (seed 1, Keras 3.15 on TensorFlow 2.21): best validation accuracy 0.981 (the book:
0.985), test ROC AUC 0.994 and accuracy 0.972; with whole recordings held out 0.999 on the default
split, 0.986 on average over five. Extra trees get 0.997. 20 epochs take 7 seconds on 2 CPU cores;
a GPU was not measured.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import time
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import keras
import matplotlib
import numpy as np
import pandas as pd
from data_prep import FEATURES, PARTS, read_eeg, split_eeg
from keras import layers
from roc_callback import RocAUCScore
from sklearn import metrics
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from tqdm import tqdm

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter04"
CLASS_NAMES = ["no seizure", "seizure"]
CHECKPOINT = "model-weights.{epoch:02d}-{val_accuracy:.6f}.weights.h5"


def load_data(source=None, group_by_recording=False):
    """Return seconds of EEG in three parts, each feature scaled to mean 0 and deviation 1.

    Args:
        source: None for the Bonn recordings (Andrzejak et al., 2001) as UCI cut them up, "sample"
            for the simulated stand-in, or a path: a CSV file with an id, the columns `FEATURES`
            and `y` (states 1 to 5; 1 is a seizure), or a folder that `data_prep.py` has written.
        group_by_recording: no recording in more than one part (ids such as X7.F003 tell).

    Returns:
        dict with `train_X`, `val_X`, `test_X`: float32 (n, 178); `train_y`, `val_y`, `test_y`:
        int64 (n,), 1 for a seizure; `scaler`: the StandardScaler, fitted on the training rows.

    Raises:
        OSError: nothing there. ValueError: not in the format above, or a part has only one class,
        for which ROC AUC is undefined; the message says where.
    """
    path = DATA_DIR / "eeg" / "eeg.csv" if source is None else Path(source)
    if source == "sample":
        path = DATA_DIR / "samples" / "eeg.csv"
    if path.is_dir():
        if group_by_recording:
            raise ValueError(f"{path} is split already; give --group-by-recording to data_prep.py")
        parts = [read_eeg(path / part / f"{part}_data.csv", (0, 1)) for part in PARTS]
    else:
        parts = split_eeg(read_eeg(path), group_by_recording)
    scaler = StandardScaler().fit(parts[0][FEATURES].to_numpy())
    data = {"scaler": scaler}
    for name, eeg in zip(PARTS, parts, strict=True):
        data[f"{name}_X"] = scaler.transform(eeg[FEATURES].to_numpy()).astype("float32")
        data[f"{name}_y"] = eeg["y"].to_numpy(dtype="int64")
        if len(np.unique(data[f"{name}_y"])) < 2:
            raise ValueError(f"{path}: {name} has a single class, so its ROC AUC is undefined")
    return data


def build_network(input_features=178, learning_rate=0.001):
    """The book's classifier, compiled: five hidden layers, one sigmoid output.

    Returns:
        keras.Model from (n, input_features) to the probability of a seizure, (n, 1).
    """
    inputs = keras.Input(shape=(input_features,), name="input")
    x = inputs
    for number, units in enumerate((128, 64, 64, 32, 16), start=1):
        x = layers.Dense(units, activation="relu", name=f"hidden{number}")(x)
    prediction = layers.Dense(1, activation="sigmoid", name="final")(x)

    model = keras.Model(inputs=inputs, outputs=prediction, name="dnn_eeg")
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=learning_rate),
        loss="binary_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=16,  # batches per trip from Python: see benchmarks/
    )
    return model


def create_callbacks(run_dir, data, resuming=False):
    """Callbacks that measure ROC AUC, keep the best epochs, and let a killed run go on.

    Args:
        run_dir: pathlib.Path of an existing folder.
        data: the dict of `load_data`.
        resuming: whether to go on with the logs of an interrupted run.
    """
    best_path, history_path = run_dir / "model.keras", run_dir / "history.csv"
    best_so_far = {}
    # Without the thresholds the first epoch after a restart would replace a better one. A file
    # half-written when the run was killed does not count.
    if resuming and history_path.exists() and zipfile.is_zipfile(best_path):
        best_so_far = pd.read_csv(history_path).max()

    def keep_best(path, metric, **options):
        return keras.callbacks.ModelCheckpoint(
            path,
            monitor=metric,
            mode="max",
            save_best_only=True,
            initial_value_threshold=best_so_far.get(metric),
            **options,
        )

    checkpoints = run_dir / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    callbacks = [
        # First: the others find `roc_auc` and `val_roc_auc` in the logs.
        RocAUCScore((data["train_X"], data["train_y"]), (data["val_X"], data["val_y"])),
        # The book's: a file for each epoch that is better than all before it, to go back to.
        keep_best(checkpoints / CHECKPOINT, "val_accuracy", save_weights_only=True),
        # With one seizure in five rows, AUC is the better judge (docs/differences.md).
        keep_best(best_path, "val_roc_auc"),
        keras.callbacks.CSVLogger(history_path, append=resuming),
        # Last, so that an epoch counts as finished only when everything else is on disk.
        keras.callbacks.BackupAndRestore(run_dir / "backup", double_checkpoint=True),
    ]
    if importlib.util.find_spec("tensorflow"):  # it writes TensorBoard's files on every backend
        callbacks.insert(1, keras.callbacks.TensorBoard(run_dir / "tb"))
    return callbacks


def finished_epochs(backup_dir):
    """Number of epochs that the backup of `BackupAndRestore` in `backup_dir` holds; 0 without one.

    A kill while Keras writes that number leaves an empty file. Then the backup of the epoch before,
    which `double_checkpoint` keeps, takes its place.
    """
    for suffix in ("", ".bkp"):
        try:
            text = (backup_dir / f"training_metadata.json{suffix}").read_text()
            epochs = json.loads(text)["epoch"]
        except (OSError, ValueError):
            continue
        if suffix:
            for name in ("latest.weights.h5", "training_metadata.json"):
                shutil.copy(backup_dir / f"{name}.bkp", backup_dir / name)
        return epochs
    return 0


def interrupted_run(run_dir, settings):
    """Whether `run_dir` holds an unfinished training of the same settings; says what it found.

    A backup of other data or another seed is set aside: going on from it would mix two runs.
    """
    settings_path = run_dir / "settings.json"
    epochs = finished_epochs(run_dir / "backup")
    if epochs:
        if settings_path.exists() and json.loads(settings_path.read_text()) == settings:
            print(f"Resuming the interrupted run in {run_dir} after epoch {epochs}.")
            return True
        print(f"{run_dir} holds an interrupted run with other settings; starting afresh.")
    shutil.rmtree(run_dir / "backup", ignore_errors=True)
    shutil.rmtree(run_dir / "tb", ignore_errors=True)
    for old in [run_dir / "model.keras", *(run_dir / "checkpoints").glob("model-weights.*")]:
        old.unlink(missing_ok=True)  # its scaler is about to be replaced
    settings_path.write_text(json.dumps(settings, indent=2))
    (run_dir / "scaler.json").write_text(json.dumps(settings["scaler"], indent=2))
    return False


def describe_scaler(scaler):
    """The scaler in plain numbers, which any program can read: no pickle needed."""
    return {"mean": scaler.mean_.tolist(), "scale": scaler.scale_.tolist()}


def class_from_prob(x, operating_point=0.5):
    """1 where a probability reaches the operating point, else 0; `x` stays as it is.

    The book's version writes the classes over the probabilities (docs/differences.md).
    """
    return (np.asarray(x) >= operating_point).astype("int64")


def choose_operating_point(y, probabilities, recall=0.95):
    """The highest operating point that finds at least this share of the seizures in `y`.

    To be chosen on validation data. A missed seizure is worse than a false alarm, so recall is
    what is fixed; 0.5 has no claim to be right.
    """
    of_seizures = np.sort(probabilities[y == 1])[::-1]
    return float(of_seizures[int(np.ceil(recall * len(of_seizures))) - 1])


def predict(model, X):
    """Probability of a seizure, (n,)."""
    return model.predict(X, batch_size=4096, verbose=0)[:, 0]


def evaluate(model, data, part, operating_point):
    """Loss, accuracy and the areas under both curves on one part of the data, then precision,
    recall and F1 at 0.5 and, with `_op` behind the name, at `operating_point`."""
    X, y = data[f"{part}_X"], data[f"{part}_y"]
    scores = model.evaluate(X, y, batch_size=4096, verbose=0, return_dict=True)
    probabilities = predict(model, X)
    scores["roc_auc"] = metrics.roc_auc_score(y, probabilities)
    scores["average_precision"] = metrics.average_precision_score(y, probabilities)
    for point, suffix in ((0.5, ""), (operating_point, "_op")):
        predicted = class_from_prob(probabilities, point)
        results = metrics.precision_recall_fscore_support(
            y, predicted, average="binary", zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), results[:3], strict=True):
            scores[name + suffix] = value
    return {name: float(value) for name, value in scores.items()}


def fit_baselines(data):
    """Three simpler models on the same rows: {name: their test probabilities}.

    Logistic regression; the same on one number alone, how far each second swings; extra trees.
    """
    models = {
        "logistic_regression": LogisticRegression(max_iter=1000),
        "swing_alone": make_pipeline(FunctionTransformer(swing), LogisticRegression()),
        "extra_trees": ExtraTreesClassifier(n_estimators=200, random_state=0, n_jobs=-1),
    }
    predictions = {}
    for name, model in tqdm(models.items(), desc="Baselines", unit="model"):
        model.fit(data["train_X"], data["train_y"])
        predictions[name] = model.predict_proba(data["test_X"])[:, 1]
    return predictions


def swing(X):
    """Standard deviation of each row, (n, 1)."""
    return X.std(axis=1, keepdims=True)


def plot_history(history, path):
    """Loss, accuracy and ROC AUC by epoch, training against validation, as a picture."""
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.5))
    epochs = history["epoch"] + 1
    best = epochs[history["val_roc_auc"].idxmax()]
    for ax, metric in zip(axes, ("loss", "accuracy", "roc_auc"), strict=True):
        ax.plot(epochs, history[metric], marker=".", label="training")
        ax.plot(epochs, history["val_" + metric], marker=".", label="validation")
        ax.axvline(best, color="grey", linestyle=":", label="best epoch")
        ax.set(xlabel="epoch", title=metric.replace("roc_auc", "ROC AUC"))
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
    axes[0].legend()
    save_figure(fig, path)


def plot_curves(y, predictions, operating_point, path):
    """ROC and precision-recall curves of {name: probabilities} on the test set, as a picture.

    Marks on the network's curves: the operating points 0.5 and `operating_point`.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    for name, probabilities in predictions.items():
        name = name.replace("_", " ")
        auc = metrics.roc_auc_score(y, probabilities)
        false_alarms, found, _ = metrics.roc_curve(y, probabilities)
        left.plot(false_alarms, found, label=f"{name}, area {auc:.3f}")
        precision, recall, _ = metrics.precision_recall_curve(y, probabilities)
        area = metrics.average_precision_score(y, probabilities)
        right.plot(recall, precision, label=f"{name}, area {area:.3f}")
    for point, mark in ((0.5, "o"), (operating_point, "D")):
        alarms = class_from_prob(predictions["network"], point) == 1
        recall, precision = alarms[y == 1].mean(), y[alarms].mean()
        style = {"marker": mark, "color": "k", "ls": "", "label": f"operating point {point:.2g}"}
        left.plot(alarms[y == 0].mean(), recall, **style)
        right.plot(recall, precision, **style)
    left.plot([0, 1], [0, 1], color="grey", linestyle=":", label="guessing, area 0.5")
    right.axhline(y.mean(), color="grey", linestyle=":", label=f"guessing, area {y.mean():.3f}")
    left.set(xlabel="false alarms (false positive rate)", ylabel="recall", title="ROC")
    right.set(xlabel="recall", ylabel="precision", title="Precision and recall", ylim=(0, 1.03))
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.legend()
    save_figure(fig, path)


def plot_traces(data, path):
    """Three test seconds of each class, as recorded, as a picture."""
    fig, axes = plt.subplots(3, 2, figsize=(10, 5.5), sharex=True, sharey=True)
    for label, column in enumerate(axes.T):
        rows = data["test_X"][data["test_y"] == label]
        traces = data["scaler"].inverse_transform(rows[:: max(1, len(rows) // 3)][:3])
        for ax, trace in zip(column, traces, strict=False):
            ax.plot(trace, linewidth=1, color=f"C{label}")
        column[0].set_title(CLASS_NAMES[label])
        column[-1].set_xlabel("sample (178 a row, about one second)")
    save_figure(fig, path)


def save_figure(fig, path):
    """Write a figure and free it."""
    fig.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(fig)


def load_best_model(run_dir, data):
    """The model of the best epoch saved in `run_dir`.

    Raises:
        OSError: there is none. ValueError: it cannot be read, or was trained on other data.
    """
    path = run_dir / "model.keras"
    if not path.exists():
        raise OSError(f"{path} does not exist; train first, without --evaluate")
    try:
        model = keras.models.load_model(path)  # safe mode: runs no code stored in the file
        scaler = json.loads((run_dir / "scaler.json").read_text())
    except Exception as error:  # many kinds, depending on which part of the file is damaged
        raise ValueError(f"{path} cannot be loaded ({error}); train again") from error
    if scaler != describe_scaler(data["scaler"]):
        raise ValueError(
            f"{path} was trained on other rows; "
            "give the --data (and --group-by-recording) it was trained on"
        )
    return model


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample", a CSV file or a folder')
    parser.add_argument("--epochs", type=positive, default=20, help="default: 20")
    parser.add_argument("--batch-size", type=positive, default=32, help="default: 32")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter04/dnn_eeg")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved model")
    parser.add_argument(
        "--group-by-recording", action="store_true", help="hold out whole recordings"
    )
    args = parser.parse_args()
    if args.run_dir is None:  # a first try on the sample must not replace a model of the real set
        name = "dnn_eeg_sample" if args.data == "sample" else "dnn_eeg"
        args.run_dir = RUNS_DIR / (name + ("_grouped" if args.group_by_recording else ""))
    return args


def positive(text):
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def train(model, data, args, settings):
    """Fit `model`, going on from an interrupted run; the best epoch is left in the run directory.

    Returns:
        (history, seconds): DataFrame with one row per epoch; time spent in `fit`, None when part
        of the training was done before an interruption.
    """
    args.run_dir.mkdir(parents=True, exist_ok=True)
    resuming = interrupted_run(args.run_dir, settings)
    start = time.perf_counter()
    model.fit(
        data["train_X"],
        data["train_y"],
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(data["val_X"], data["val_y"]),
        callbacks=create_callbacks(args.run_dir, data, resuming),
    )
    seconds = None if resuming else round(time.perf_counter() - start, 1)
    # An epoch whose backup was cut off is logged twice.
    history = pd.read_csv(args.run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    return history.reset_index(drop=True), seconds


def report(model, data, run_dir):
    """Score the model and the baselines, print both, draw the pictures; returns the scores."""
    point = choose_operating_point(data["val_y"], predict(model, data["val_X"]))
    scores = {"operating_point": point}
    scores |= {part: evaluate(model, data, part, point) for part in PARTS}
    y, predictions = data["test_y"], {"network": predict(model, data["test_X"])}
    print("      accuracy  ROC AUC")
    for part in PARTS:
        print(f"{part:>5} {scores[part]['accuracy']:8.4f} {scores[part]['roc_auc']:8.4f}")
    scores["baselines"] = {}
    for name, probabilities in fit_baselines(data).items():
        accuracy = float(np.mean(class_from_prob(probabilities) == y))
        auc = float(metrics.roc_auc_score(y, probabilities))
        scores["baselines"] |= {f"{name}_accuracy": accuracy, f"{name}_roc_auc": auc}
        verdict = "better" if auc > scores["test"]["roc_auc"] else "worse"
        name = name.replace("_", " ")
        print(f" test {accuracy:8.4f} {auc:8.4f}  with {name}, {verdict} than the network")
        predictions[name] = probabilities
    for at, why in (
        (0.5, "as in the book"),
        (point, "the highest that finds 95 % of the validation seizures"),
    ):
        print(f"\nTest set, operating point {at:.3g} ({why}):")
        predicted = class_from_prob(predictions["network"], at)
        print(
            metrics.classification_report(
                y, predicted, target_names=CLASS_NAMES, digits=3, zero_division=0
            )
        )
    plot_curves(y, predictions, point, run_dir / "curves.png")
    plot_traces(data, run_dir / "traces.png")
    return scores


def main():
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    backend = keras.backend.backend()
    device = keras.distribution.list_devices()[0]
    if device.startswith("cpu"):
        device += f" ({os.cpu_count()} cores)"
    print(f"Keras {keras.__version__} on {backend}, device: {device}")

    try:
        data = load_data(args.data, args.group_by_recording)
        model = load_best_model(args.run_dir, data) if args.evaluate else build_network()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = "EEG of Bonn and UCI" if args.data is None else Path(args.data).name
    if args.data == "sample":
        source = "sample (a simulated stand-in for the EEG)"
    source += ", whole recordings held out" if args.group_by_recording else ""
    counts = [f"{len(data[f'{part}_y']):,} {part}" for part in PARTS]
    print(f"Data: {source}: {', '.join(counts)}, {data['train_y'].mean():.1%} seizures")
    if args.evaluate:
        report(model, data, args.run_dir)
        print(f"The pictures are in {args.run_dir}")
        return

    model.summary()
    settings = {
        "data": source,
        "seed": args.seed,
        "batch_size": args.batch_size,
        "scaler": describe_scaler(data["scaler"]),
    }
    try:
        history, seconds = train(model, data, args, settings)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last finished epoch.")
    plot_history(history, args.run_dir / "learning_curves.png")
    best_epoch = int(history["epoch"][history["val_roc_auc"].idxmax()]) + 1
    print("\nCheckpoints, each with a better validation accuracy than those before:")
    for path in sorted((args.run_dir / "checkpoints").glob("model-weights.*")):
        print(f"  {path.name}")
    print(f"By validation ROC AUC the best of {len(history)} epochs was number {best_epoch}:")
    results = {
        "script": "chapter04/dnn_eeg.py",
        "data": source,
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": backend,
            backend: importlib.metadata.version(backend),
        },
        "device": device,
        "epochs": len(history),
        "best_epoch": best_epoch,
        "best_val_accuracy": float(history["val_accuracy"].max()),
        "seconds": seconds,
        "parameters": model.count_params(),
        **report(load_best_model(args.run_dir, data), data, args.run_dir),
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"Model, metrics and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
