"""Small things that agents and processors need."""

import keras
import numpy as np


def clone_model(model):
    """A network of the same layers and weights that shares nothing with `model`."""
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def clone_optimizer(optimizer):
    """A new optimizer with the same settings; `optimizer`: one, or its name."""
    return keras.optimizers.deserialize(keras.optimizers.serialize(keras.optimizers.get(optimizer)))


def huber_loss(y_true, y_pred, clip_value):
    """Half the squared error, but for errors above `clip_value` it grows in a straight line."""
    size = keras.ops.abs(y_true - y_pred)
    squared = size * size / 2
    if np.isinf(clip_value):
        return squared
    return keras.ops.where(size < clip_value, squared, clip_value * (size - clip_value / 2))


class WhiteningNormalizer:
    """Mean and standard deviation of all values (n, *shape) so far, for a processor of yours."""

    def __init__(self, shape, eps=1e-2, dtype="float64"):
        self.eps, self.dtype = eps, dtype
        self._sum, self._sumsq, self._count = np.zeros(shape), np.zeros(shape), 0

    def update(self, x):
        self._count += len(x)
        self._sum += x.sum(axis=0)
        self._sumsq += np.square(x).sum(axis=0)
        self.mean = (self._sum / self._count).astype(self.dtype)
        variance = self._sumsq / self._count - np.square(self.mean)
        self.std = np.sqrt(np.maximum(self.eps**2, variance)).astype(self.dtype)

    def normalize(self, x):
        return (x - self.mean) / self.std

    def denormalize(self, x):
        return x * self.std + self.mean
