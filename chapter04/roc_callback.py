"""ROC AUC at the end of every epoch, and whether two ROC AUCs differ.

Book: chapter 4, "Measuring ROC AUC in a custom callback".

    roc_auc = RocAUCScore((train_X, train_y), (val_X, val_y))
    model.fit(..., callbacks=[roc_auc, keras.callbacks.CSVLogger("history.csv")])

Put it first: only callbacks after it find `roc_auc` and `val_roc_auc` in the logs, to write them
down or to watch them, as ModelCheckpoint("best.keras", monitor="val_roc_auc", mode="max") does.
"""

import keras
import numpy as np
from sklearn.metrics import roc_auc_score


class RocAUCScore(keras.callbacks.Callback):
    """Adds `roc_auc` and `val_roc_auc` to the logs of each epoch.

    For a network with one sigmoid output, or a softmax of two of which the second is the positive
    class. Two arrays (X, y) each; y (n,) holds two classes, or a ValueError says so.
    """

    def __init__(self, training_data, validation_data):
        super().__init__()
        self.sets = {"roc_auc": training_data, "val_roc_auc": validation_data}
        for name, (_, y) in self.sets.items():
            if np.size(y) != len(y) or len(np.unique(y)) != 2:
                raise ValueError(f"{name} needs a label a row, of two classes, not {np.unique(y)}")

    def on_epoch_end(self, epoch, logs=None):
        for name, (X, y) in self.sets.items():
            probabilities = self.model.predict(X, batch_size=4096, verbose=0)
            if probabilities.shape[1:] not in ((1,), (2,)):
                raise ValueError(f"{name} needs one or two outputs, not {probabilities.shape[1:]}")
            logs[name] = roc_auc_score(y, probabilities[:, -1])


def compare_aucs(y, ours, theirs, groups):
    """ROC AUC of `ours` minus that of `theirs`, and its standard error.

    y (n,), 0 or 1; ours, theirs (n,): probabilities of the same rows; groups (n,): rows of one are
    alike. The error is a Bayesian bootstrap's (Rubin, 1981): 200 times each group weighs otherwise.
    """
    _, group = np.unique(groups, return_inverse=True)
    weights = np.random.default_rng(0).exponential(size=(200, group.max() + 1))[:, group]
    weights[0] = 1
    aucs = [[roc_auc_score(y, p, sample_weight=w) for p in (theirs, ours)] for w in weights]
    more = np.diff(aucs)[:, 0]
    return more[0], more[1:].std()
