"""Processors of networks with several inputs, and of inputs on different scales."""

from .core import Processor
from .util import WhiteningNormalizer


class MultiInputProcessor(Processor):
    """For observations that are lists of `nb_inputs` arrays, one for each input of the network.

    The memory keeps each of them by itself, so there is nothing left to do but to check.
    """

    def __init__(self, nb_inputs):
        self.nb_inputs = nb_inputs

    def process_state_batch(self, batch):
        if len(batch) != self.nb_inputs:
            raise ValueError(f"an observation has {len(batch)} parts, not {self.nb_inputs}")
        return batch


class WhiteningNormalizerProcessor(Processor):
    """States with mean 0 and standard deviation 1, by what has been seen so far."""

    normalizer = None

    def process_state_batch(self, batch):
        if self.normalizer is None:
            self.normalizer = WhiteningNormalizer(batch.shape[1:], dtype=batch.dtype)
        self.normalizer.update(batch)
        return self.normalizer.normalize(batch)
