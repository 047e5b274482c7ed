"""ROC AUC at the end of every epoch, on the training and on the validation set.

Book: chapter 4, "Measuring ROC AUC in a custom callback". It works for any network with one
sigmoid output:

    roc_auc = RocAUCScore((data["train_X"], data["train_y"]), (data["val_X"], data["val_y"]))
    model.fit(..., callbacks=[roc_auc, keras.callbacks.CSVLogger("history.csv")])

Put it first in the list. The two scores are added to the epoch's `logs` as `roc_auc` and
`val_roc_auc`, and only callbacks after it find them there: TensorBoard and CSVLogger write them
down, `ModelCheckpoint(monitor="val_roc_auc", mode="max")` and EarlyStopping can watch them.
"""

import keras
import numpy as np
from sklearn.metrics import roc_auc_score


class RocAUCScore(keras.callbacks.Callback):
    """Adds `roc_auc` and `val_roc_auc` to the logs of every epoch.

    Args:
        training_data, validation_data: (X, y) each, arrays; y is 0 or 1. Where y holds one class
            only, ROC AUC is undefined: that is said once, and nan is logged.
        batch_size: rows per step; nothing is learned here, so the more the faster.
    """

    def __init__(self, training_data, validation_data, batch_size=4096):
        super().__init__()
        self.sets = {"roc_auc": training_data, "val_roc_auc": validation_data}
        self.batch_size = batch_size

    def on_train_begin(self, logs=None):
        for name, (_, y) in self.sets.items():
            if len(np.unique(y)) < 2:
                print(f"{name} is undefined, logged as nan: its labels are all of one class.")

    def on_epoch_end(self, epoch, logs=None):
        for name, (X, y) in self.sets.items():
            defined = len(np.unique(y)) == 2
            score = roc_auc_score(y, self.predict(X)) if defined else float("nan")
            if logs is not None:
                logs[name] = float(score)

    def predict(self, X):
        """Probabilities (n,), by direct calls: `model.predict` takes longer to start than to run.

        On JAX, `self.model` brings the weights of the running `fit` up to date first.
        """
        model = self.model
        steps = [X[i : i + self.batch_size] for i in range(0, len(X), self.batch_size)]
        parts = [keras.ops.convert_to_numpy(model(step, training=False)) for step in steps]
        return np.concatenate(parts)[:, 0]
