"""Chapter 7's CNN: images per second in training, the book's way against ours, in one run.

    python benchmarks/bench_cnn_cifar10.py            # about 3 minutes on 2 cores

The book's way: float32 images scaled beforehand, one-hot labels, `fit` as it comes. Ours: the
script's own `build_network` on bytes and integer labels, shuffled by `tf.data` anew in each epoch,
16 batches per trip from Python. Both train the same network on the same images at the same batch
size, by turns, after a warm-up epoch.

On a CPU batch normalization is a third of a step: Keras 3 computes it by a dozen operations, where
TensorFlow has one, `fused_batch_norm`. The third contestant is ours with that. The script stays
with Keras's own layer, on which a replaced `call` would have to follow from version to version.
"""

import argparse
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from common import ROOT, load_script, record, time_fit

BATCH_SIZE = 32


def book_network(ours):
    """The same layers without `Rescaling`, compiled as the book does."""
    inputs = keras.Input(shape=(32, 32, 3), name="input")
    x = inputs
    for layer in ours.layers[2:]:
        x = layer.__class__.from_config(layer.get_config())(x)
    model = keras.Model(inputs, x)
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """The same layer by TensorFlow's one operation; its variance is n / (n - 1) times Keras's."""

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=False)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for average, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + new * (1 - self.momentum))
        return outputs


def fused_network(ours):
    """Ours with the layers above."""
    kinds = {keras.layers.BatchNormalization: FusedBatchNormalization}
    x = inputs = keras.Input(shape=(32, 32, 3), name="input")
    for layer in ours.layers[1:]:
        x = kinds.get(layer.__class__, layer.__class__).from_config(layer.get_config())(x)
    model = keras.Model(inputs, x)
    model.compile("adam", ours.loss, metrics=["accuracy"], steps_per_execution=16)
    return model


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=12_800, help="per epoch (default: 12800)")
    parser.add_argument("--repeats", type=int, default=5, help="timed epochs each (default: 5)")
    args = parser.parse_args()

    keras.utils.set_random_seed(1)
    script = load_script(ROOT / "chapter07" / "cnn_cifar10.py")
    data = script.load_data("sample")  # the speed does not depend on what the images show
    rows = np.resize(np.arange(len(data["train_X"])), args.images)
    X, y = data["train_X"][rows], data["train_y"][rows]

    ours = script.build_network()
    book, fused = book_network(ours), fused_network(ours)
    assert book.count_params() == ours.count_params()
    scaled, one_hot = X.astype("float32") / 255, keras.utils.to_categorical(y, 10)
    shuffled = tf.data.Dataset.from_tensor_slices((X, y)).shuffle(len(X), seed=1).batch(BATCH_SIZE)
    contestants = {
        "the book's way": lambda: time_fit(book, scaled, one_hot, batch_size=BATCH_SIZE),
        "ours": lambda: time_fit(ours, shuffled, shuffle=False),
        "ours, fused": lambda: time_fit(fused, shuffled, shuffle=False),
    }
    speeds = {name: [] for name in contestants}
    for turn in range(args.repeats + 1):
        for name, run_epoch in contestants.items():
            seconds = run_epoch()
            if turn > 0:  # the first epoch compiles
                speeds[name].append(args.images / seconds)

    print(
        f"Keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores, ", end=""
    )
    print(f"batch size {BATCH_SIZE}, median (lowest to highest) of {args.repeats} epochs")
    for name, values in speeds.items():
        median = statistics.median(values)
        print(f"{name:15} {median:7.0f} images/s ({min(values):.0f} to {max(values):.0f})")
    book, ours, fused = speeds.values()
    print(f"{'ratio':15} {statistics.median(ours) / statistics.median(book):7.2f}")
    record("chapter 7, CNN: training", "images/s", book, ours)
    what = "chapter 7, CNN: fused batch normalization"
    record(what, "images/s", ours, fused, "the script as it is")


if __name__ == "__main__":
    main()
