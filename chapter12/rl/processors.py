"""Processors of networks with several inputs."""

from .core import Processor


class MultiInputProcessor(Processor):
    """For observations that are lists of `nb_inputs` arrays, one for each input of the network.

    The memory keeps each of them by itself, so there is nothing left to do.
    """

    def __init__(self, nb_inputs):
        self.nb_inputs = nb_inputs
