"""Callbacks of agents: Keras's, with episodes and steps in place of epochs and batches."""

import json
import time
from functools import partial
from pathlib import Path

import keras
import numpy as np


class Callback(keras.callbacks.Callback):
    """Has functions for what it wants to hear of; `self.model` is the agent, `self.env` its world.

    on_train_begin(logs), on_train_end(logs)
    on_episode_begin(episode, logs), on_episode_end(episode, logs): episode_reward,
        nb_episode_steps, nb_steps, and the means of what was learned
    on_step_begin(step, logs), on_step_end(step, logs): action, observation, reward, metrics,
        episode, info; steps count from 0 in each episode
    on_action_begin(action, logs), on_action_end(action, logs)
    """

    def _set_env(self, env):
        self.env = env


class CallbackList:
    """Calls several callbacks; Keras's own hear of epochs and batches."""

    def __init__(self, callbacks, agent, env, params):
        for callback in callbacks:
            callback.set_model(agent)
            callback.set_params(params)
            if hasattr(callback, "_set_env"):
                callback._set_env(env)
        for what in ("train", "episode", "step", "action"):
            of_keras = {"episode": "epoch", "step": "batch"}.get(what, what)
            for when in ("begin", "end"):
                name = f"on_{what}_{when}"
                calls = [
                    getattr(callback, name, None)
                    or getattr(callback, f"on_{of_keras}_{when}", None)
                    for callback in callbacks
                ]
                setattr(self, name, partial(self._call, [call for call in calls if call]))

    @staticmethod
    def _call(functions, *args):
        for function in functions:
            function(*args)


class TestLogger(Callback):
    """A line for each episode of a test."""

    __test__ = False  # for pytest: this is no test

    def on_episode_end(self, episode, logs=None):
        reward, steps = logs["episode_reward"], logs["nb_steps"]
        print(f"Episode {episode + 1}: reward: {reward:.3f}, steps: {steps}", flush=True)


class TrainIntervalLogger(Callback):
    """A line each `interval` steps about the episodes that ended in them."""

    def __init__(self, interval=10000):
        self.interval = interval

    def on_train_begin(self, logs=None):
        self.episodes, self.start, self.first = [], time.perf_counter(), self.model.step

    def on_episode_end(self, episode, logs=None):
        self.episodes.append(logs)
        step, names = self.model.step, self.model.metrics_names
        if step // self.interval > self.first // self.interval:
            rewards = [logs["episode_reward"] for logs in self.episodes]
            figures = {name: logs[name] for name in names if logs[name] is not None}
            speed = (step - self.first) / (time.perf_counter() - self.start)
            print(
                f"{step}/{self.params['nb_steps']}: {len(rewards)} episodes to {episode + 1}, "
                f"reward {np.mean(rewards):.1f} [{min(rewards):.1f}, {max(rewards):.1f}], ",
                *(f"{name}: {value:.3f}, " for name, value in figures.items()),
                f"{speed:.0f} steps per second",
                sep="",
                flush=True,
            )
            self.on_train_begin()


class Visualizer(Callback):
    """Renders each step, if the environment has been made with a render_mode."""

    def on_action_end(self, action, logs=None):
        if getattr(self.env, "render_mode", None):
            self.env.render()


class FileLogger(Callback):
    """Writes the figures of all episodes into a JSON file: {name: list}.

    interval: write it after this many episodes, and at the end. Where a training goes on
    (`initial_step`), what the file has of it is kept; in keras-rl it is overwritten.
    """

    def __init__(self, filepath, interval=None):
        self.filepath, self.interval = Path(filepath), interval

    def on_train_begin(self, logs=None):
        self.data = {}
        if self.model.step and self.filepath.exists():
            data = json.loads(self.filepath.read_text())
            rows = sum(steps <= self.model.step for steps in data.get("nb_steps", []))
            self.data = {name: values[:rows] for name, values in data.items()}

    def on_episode_begin(self, episode, logs=None):
        self.start = time.perf_counter()

    def on_episode_end(self, episode, logs=None):
        duration = time.perf_counter() - self.start
        for name, value in (logs | {"episode": episode, "duration": duration}).items():
            self.data.setdefault(name, []).append(value)
        if self.interval and (episode + 1) % self.interval == 0:
            self.save_data()

    def on_train_end(self, logs=None):
        self.save_data()

    def save_data(self):
        new = self.filepath.with_name(f"new_{self.filepath.name}")
        new.write_text(json.dumps(self.data))
        new.replace(self.filepath)  # a kill leaves the old one or the new one, and both whole


class ModelIntervalCheckpoint(Callback):
    """Saves the network's weights each `interval` steps; "{step}" in `filepath` is replaced."""

    def __init__(self, filepath, interval, verbose=0):
        self.filepath, self.interval, self.verbose = str(filepath), interval, verbose

    def on_step_end(self, step, logs=None):
        step = self.model.step + 1
        if step % self.interval == 0:
            filepath = self.filepath.replace("{step}", str(step))
            if self.verbose:
                print(f"Step {step}: saving model to {filepath}")
            self.model.save_weights(filepath, overwrite=True)
