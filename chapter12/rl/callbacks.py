"""Callbacks of agents: as Keras's, with episodes and steps in place of epochs and batches."""

import json
import time
from pathlib import Path

import keras
import numpy as np


class Callback(keras.callbacks.Callback):
    """Override these, `on_train_begin` or `on_train_end`; `self.model` is the agent."""

    def on_episode_begin(self, episode, logs=None):
        pass

    def on_episode_end(self, episode, logs=None):
        """logs: episode_reward, nb_episode_steps, nb_steps, and the means of what was learned."""

    def on_step_end(self, step, logs=None):
        """`step` counts from 0; logs: action, observation, reward, metrics, episode, info."""


class History(Callback):
    """Collects the figures of all episodes in `history`: {name: list}."""

    def __init__(self):
        self.history = {}

    def on_episode_end(self, episode, logs=None):
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class EpisodeLogger(Callback):
    """A line each `interval` steps about the episodes that ended in them; 1: about each."""

    def __init__(self, interval=1):
        self.interval = interval

    def on_train_begin(self, logs=None):
        self.rewards, self.last = [], self.model.step

    def on_episode_end(self, episode, logs=None):
        self.rewards.append(logs["episode_reward"])
        step, names = logs["nb_steps"], self.model.metrics_names
        if step // self.interval > self.last // self.interval:
            reward = f"mean reward {np.mean(self.rewards):.1f} of {len(self.rewards)}"
            figures = [f"{name} {logs[name]:.3f}" for name in names if logs[name] is not None]
            print(f"Step {step}: episode {episode + 1}", reward, *figures, sep=", ", flush=True)
            self.rewards, self.last = [], step


class FileLogger(History):
    """Writes the figures of all episodes into a JSON file: {name: list}.

    interval: write it after this many episodes, and at the end. Where a training goes on
    (`initial_step`), what the file has of it is kept; in keras-rl it is overwritten.
    """

    def __init__(self, filepath, interval=None):
        self.filepath, self.interval = Path(filepath), interval

    def on_train_begin(self, logs=None):
        self.history = {}
        if self.model.step and self.filepath.exists():
            log = json.loads(self.filepath.read_text())
            rows = sum(steps <= self.model.step for steps in log.get("nb_steps", []))
            self.history = {name: values[:rows] for name, values in log.items()}

    def on_episode_begin(self, episode, logs=None):
        self.start = time.perf_counter()

    def on_episode_end(self, episode, logs=None):
        duration = time.perf_counter() - self.start
        super().on_episode_end(episode, logs | {"episode": episode, "duration": duration})
        if self.interval and (episode + 1) % self.interval == 0:
            self.save_data()

    def on_train_end(self, logs=None):
        self.save_data()

    def save_data(self):
        new = self.filepath.with_name(f"new_{self.filepath.name}")
        new.write_text(json.dumps(self.history))
        new.replace(self.filepath)  # a kill leaves the old one or the new one, and both whole


class ModelIntervalCheckpoint(Callback):
    """Saves the network's weights each `interval` steps; "{step}" in `filepath` is replaced."""

    def __init__(self, filepath, interval):
        self.filepath, self.interval = str(filepath), interval

    def on_step_end(self, step, logs=None):
        step = self.model.step + 1
        if step % self.interval == 0:
            self.model.save_weights(self.filepath.replace("{step}", str(step)), overwrite=True)
