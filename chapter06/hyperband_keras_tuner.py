"""The search of hyperband_mnist.py with the library that people use today, KerasTuner.

Book: chapter 6, "Hyperband".

    python chapter06/hyperband_keras_tuner.py --data sample --max-iter 9
    python chapter06/hyperband_keras_tuner.py --train-images 1000 --max-iter 27

The same digits, network and space. KerasTuner judges a training by its best epoch; survivors go on
from that epoch's weights, with a new optimizer. A search that was cut off goes on.
"""

import sys
import zlib

import keras
import keras_tuner
import numpy as np
import pandas as pd
import tensorflow as tf
from hyperband import open_run
from hyperband_mnist import build_network, load_data, parse_arguments, plot_search


class Network(keras_tuner.HyperModel):
    """The network and its training; `hp` draws the hyperparameters."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def build(self, hp):
        hp.Choice("batch_size", [5, 10, 100])  # for `fit`
        dropout = hp.Choice("dropout", np.linspace(0.1, 0.5, 10).tolist())
        optimizer = hp.Choice("optimizer", ["rmsprop", "adam", "adadelta"])
        learning_rate = hp.Float("learning_rate", 1e-4, 1.0, sampling="log")
        return build_network(self.data["sizes"], dropout, optimizer, learning_rate)

    def fit(self, hp, model, **options):
        rows = tf.data.Dataset.from_tensor_slices((self.data["train_X"], self.data["train_y"]))
        batches = rows.shuffle(len(rows)).batch(hp.get("batch_size"))
        return model.fit(batches, shuffle=False, **options)


def list_evaluations(oracle):
    """The finished trainings, in their order, as hyperband_mnist.py has them."""
    evaluations = []
    for trial in map(oracle.trials.get, oracle.end_order):
        values = dict(trial.hyperparameters.values)
        own = {name: values.pop(name) for name in list(values) if name.startswith("tuner/")}
        epochs, start = own["tuner/epochs"], own["tuner/initial_epoch"]
        loss = float(trial.score) if trial.status == "COMPLETED" else None
        entry = {"search": "KerasTuner", "bracket": own["tuner/bracket"], "config": str(values)}
        entry |= {"rung": own["tuner/round"], "epochs": epochs, "trained": epochs - start}
        evaluations.append(entry | {"params": values, "loss": loss, "lowest_loss": loss})
    return evaluations


def main():
    args = parse_arguments("hyperband_keras_tuner", __doc__)
    try:
        keras.utils.set_random_seed(args.seed)
        if args.random_search:
            raise ValueError("--random-search is for hyperband_mnist.py")
        data = load_data(args.data, args.train_images)
        settings = {"max_iter": args.max_iter, "seed": args.seed}
        settings["digits"] = zlib.crc32(data["train_X"].tobytes() + data["train_y"].tobytes())
        open_run(args.run_dir, settings)
        tuner = keras_tuner.Hyperband(
            Network(data),
            objective="val_loss",
            max_epochs=args.max_iter,
            seed=args.seed,
            directory=args.run_dir,
            project_name="keras_tuner",
            max_consecutive_failed_trials=1000,  # what diverges has failed
        )
        validation_data = data["val_X"], data["val_y"]
        tuner.search(validation_data=validation_data, validation_batch_size=500, verbose=0)
    except KeyboardInterrupt:
        sys.exit("Interrupted: the same command goes on, with other random numbers")
    except Exception as error:  # NumPy, zlib and KerasTuner raise a dozen kinds
        sys.exit(f"error: {args.data or 'MNIST'}: {' '.join(str(error).split())[:500]}")
    table = pd.DataFrame(list_evaluations(tuner.oracle))
    table.to_json(args.run_dir / "evaluations.jsonl", orient="records", lines=True)
    plot_search(table, args.run_dir / "search.png")
    print(f"Best: {table.loc[table['loss'].idxmin()].to_dict()}")


if __name__ == "__main__":
    main()
