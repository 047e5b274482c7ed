"""Callbacks of agents: Keras's, with episodes and steps in place of epochs and batches."""

import json
import time
from functools import partial
from pathlib import Path

import keras
import numpy as np


class Callback(keras.callbacks.Callback):
    """Does nothing at each occasion; `self.model` is the agent, `self.env` the environment."""

    def _set_env(self, env):
        self.env = env

    def on_episode_begin(self, episode, logs=None):
        """Episodes count from 0."""

    def on_episode_end(self, episode, logs=None):
        """`logs`: episode_reward, nb_episode_steps, nb_steps and the means of what was learned."""

    def on_step_begin(self, step, logs=None):
        """Steps count from 0 in each episode."""

    def on_step_end(self, step, logs=None):
        """`logs`: action, observation, reward, metrics, episode, info."""

    def on_action_begin(self, action, logs=None):
        """Before each step of the environment."""

    def on_action_end(self, action, logs=None):
        """After it."""


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
        self.next, self.episodes = self.model.step + self.interval, []
        self.start = time.perf_counter(), self.model.step

    def on_episode_end(self, episode, logs=None):
        self.episodes.append(logs)
        if logs["nb_steps"] >= self.next:
            seconds, steps = time.perf_counter() - self.start[0], logs["nb_steps"] - self.start[1]
            rewards = [logs["episode_reward"] for logs in self.episodes]
            print(
                f"{logs['nb_steps']}/{self.params['nb_steps']} steps: {len(rewards)} episodes, "
                f"reward {np.mean(rewards):.1f} [{min(rewards):.1f}, {max(rewards):.1f}]"
                f"{_figures(self.model, logs)}, {steps / seconds:.0f} steps per second",
                flush=True,
            )
            self.on_train_begin()
            self.next = logs["nb_steps"] - logs["nb_steps"] % self.interval + self.interval


class TrainEpisodeLogger(Callback):
    """A line for each episode of a training."""

    def on_episode_begin(self, episode, logs=None):
        self.start = time.perf_counter()

    def on_episode_end(self, episode, logs=None):
        steps, seconds = logs["nb_episode_steps"], time.perf_counter() - self.start
        print(
            f"{logs['nb_steps']}/{self.params['nb_steps']}: episode: {episode + 1}, "
            f"duration: {seconds:.3f}s, episode steps: {steps}, steps per second: "
            f"{steps / seconds:.0f}, episode reward: {logs['episode_reward']:.3f}"
            f"{_figures(self.model, logs)}",
            flush=True,
        )


def _figures(agent, logs):
    figures = {name: logs[name] for name in agent.metrics_names if logs[name] is not None}
    return "".join(f", {name}: {value:.3f}" for name, value in figures.items())


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


class KeepLast(Callback):
    """Saves network and optimizer as `last_{step}.keras`, and the episodes of `log`, a FileLogger.

    Each `interval` steps, after an episode, and at the end; it takes the place of the one before.
    """

    def __init__(self, run_dir, log, interval):
        self.run_dir, self.log, self.interval = Path(run_dir), log, interval

    def on_train_begin(self, logs=None):
        self.saved = self.model.step

    def on_episode_end(self, episode, logs=None):
        if self.model.step - self.saved >= self.interval:
            self.save()

    def on_train_end(self, logs=None):
        self.save()

    def save(self):
        self.saved = self.model.step
        self.log.save_data()  # first: the network's episodes must be in it
        before = set(self.run_dir.glob("last_[0-9]*.keras"))
        last = self.run_dir / f"last_{self.model.step}.keras"
        self.model.model.save(self.run_dir / "new_last.keras")
        (self.run_dir / "new_last.keras").replace(last)  # a kill leaves one that is whole
        for path in before - {last}:
            path.unlink()


class KeepBest(Callback):
    """Plays greedy games each `interval` steps, and saves the network that did best as model.keras.

    An agent that has learned its task forgets it now and then, and which step of a training is the
    last decides much. As with a validation set, these games are not those of the test.

    env: for these games alone. seed: of the first. episodes: how many. Of equals the later is kept.
    """

    def __init__(self, run_dir, env, interval, episodes=20, seed=0):
        self.run_dir, self.own_env = Path(run_dir), env
        self.interval, self.episodes, self.seed = interval, episodes, seed

    def on_train_begin(self, logs=None):
        self.tried, self.best = self.model.step, -np.inf
        note = self.run_dir / "best.json"
        if self.model.step and note.exists():
            self.best = json.loads(note.read_text())["mean_reward"]

    def on_episode_end(self, episode, logs=None):
        if self.model.step - self.tried >= self.interval:
            self.try_out()

    def on_train_end(self, logs=None):
        if self.model.step > self.tried and not logs["did_abort"]:
            self.try_out()

    def try_out(self):
        self.tried = self.model.step
        self.own_env.reset(seed=self.seed)
        history = self.model.test(self.own_env, self.episodes, visualize=False, verbose=0)
        reward = float(np.mean(history.history["episode_reward"]))
        if reward >= self.best:
            self.best = reward
            self.model.model.save(self.run_dir / "new_model.keras")
            (self.run_dir / "new_model.keras").replace(self.run_dir / "model.keras")
            note = {"mean_reward": reward, "step": self.tried, "episodes": self.episodes}
            (self.run_dir / "best.json").write_text(json.dumps(note))
