"""Processors: change what an environment sends before the agent sees it."""

import numpy as np
from PIL import Image


class Processor:
    """Passes everything on as it is; override what you need."""

    def process_observation(self, observation):
        """What is put into memory."""
        return observation

    def process_reward(self, reward):
        """What is learned from; the log keeps the environment's own reward."""
        return reward


class AtariProcessor(Processor):
    """Atari frames as DeepMind prepared them: 84x84 grey bytes, rewards cut to -1 … 1.

    Bytes, not floats: a memory of a million frames is 7 GB, and the network divides by 255.

    Args:
        size: (height, width) in pixels.
    """

    def __init__(self, size=(84, 84)):
        self.size = size

    def process_observation(self, observation):
        """uint8 (height, width, 3) or grey (height, width) to uint8 (84, 84)."""
        image = Image.fromarray(observation)
        if observation.ndim == 3:
            image = image.convert("L")  # ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B
        height, width = self.size
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    def process_reward(self, reward):
        return float(np.clip(reward, -1.0, 1.0))
