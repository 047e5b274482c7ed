"""Callbacks of agents: like those of Keras, but with episodes and steps instead of epochs."""

import json
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm


class Callback:
    """Does nothing at each occasion; override what you need.

    Attributes: `agent`, `env`, and `params`, a dict with `nb_steps` and `nb_episodes`.
    """

    def on_train_begin(self):
        """Before the first episode; also of a test."""

    def on_train_end(self):
        """After the last episode, or after an error."""

    def on_episode_begin(self, episode):
        """Before an episode; they count from 0."""

    def on_episode_end(self, episode, logs):
        """After it: `episode_reward`, `nb_episode_steps`, `nb_steps`, and what was learned."""

    def on_step_end(self, step, logs):
        """After each step; they count from 1. `logs`: `reward`, `info`, `episode`."""


class CallbackList:
    """Calls several callbacks, and at each occasion only those that do something then."""

    def __init__(self, callbacks, agent, env, nb_steps, nb_episodes):
        for callback in callbacks:
            callback.agent, callback.env = agent, env
            callback.params = {"nb_steps": nb_steps, "nb_episodes": nb_episodes}
        for name in [name for name in vars(Callback) if name.startswith("on_")]:
            wanted = [c for c in callbacks if getattr(type(c), name) is not getattr(Callback, name)]
            setattr(self, name, self._call_all([getattr(c, name) for c in wanted]))

    @staticmethod
    def _call_all(functions):
        def call(*args):
            for function in functions:
                function(*args)

        return call


class ProgressBar(Callback):
    """Steps done, steps per second, and the mean reward of the last 20 episodes."""

    def on_train_begin(self):
        self.rewards = []
        self.bar = tqdm(
            total=self.params["nb_steps"], initial=self.agent.step, unit="step", mininterval=0.5
        )

    def on_step_end(self, step, logs):
        self.bar.update()

    def on_episode_end(self, episode, logs):
        self.rewards = [*self.rewards[-19:], logs["episode_reward"]]
        self.bar.set_postfix(episode=episode, reward=f"{np.mean(self.rewards):.1f}", refresh=False)

    def on_train_end(self):
        self.bar.close()


class EpisodeLogger(Callback):
    """A line for each episode."""

    def on_train_begin(self):
        self.start, self.first_step = time.perf_counter(), self.agent.step

    def on_episode_end(self, episode, logs):
        speed = (logs["nb_steps"] - self.first_step) / (time.perf_counter() - self.start)
        figures = "".join(
            f", {name} {logs[name]:.3f}" for name in ("loss", "mean_q", "mean_eps") if name in logs
        )
        print(
            f"episode {episode}: reward {logs['episode_reward']:.1f} in "
            f"{logs['nb_episode_steps']} steps; step {logs['nb_steps']:,}, "
            f"{speed:.0f} steps/s{figures}",
            flush=True,
        )


class FileLogger(Callback):
    """Keeps the figures of all episodes in a JSON file: name → list, as keras-rl writes them.

    Args:
        filepath: of the file; one that exists already is added to when `append`.
        interval: write it after this many episodes, and at the end.
        append: whether the agent goes on from a checkpoint. What came after that is dropped.
    """

    def __init__(self, filepath, interval=100, append=False):
        self.filepath, self.interval, self.append = Path(filepath), interval, append
        self.data = {}

    def on_train_begin(self):
        self.start = time.perf_counter()
        if self.append and self.filepath.exists():
            data = json.loads(self.filepath.read_text())
            keep = sum(episode <= self.agent.episode for episode in data.get("episode", []))
            self.data = {name: values[:keep] for name, values in data.items()}

    def on_episode_end(self, episode, logs):
        logs = {"episode": episode, "duration": time.perf_counter() - self.start, **logs}
        length = len(self.data.get("episode", []))
        for name in {*self.data, *logs}:  # before training starts there is no loss: null
            self.data.setdefault(name, [None] * length).append(logs.get(name))
        if episode % self.interval == 0:
            self.write()

    def on_train_end(self):
        self.write()

    def write(self):
        """Replace the file as a whole, so that a kill leaves the old one or the new one."""
        self.filepath.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.filepath.with_name(self.filepath.name + ".new")
        fresh.write_text(json.dumps(self.data))
        fresh.replace(self.filepath)


class ModelIntervalCheckpoint(Callback):
    """Saves the network's weights every `interval` steps.

    Args:
        filepath: of the `.weights.h5` file; "{step}" in it is replaced.
    """

    def __init__(self, filepath, interval):
        self.filepath, self.interval = str(filepath), interval

    def on_step_end(self, step, logs):
        if step % self.interval == 0:
            Path(self.filepath).parent.mkdir(parents=True, exist_ok=True)
            self.agent.save_weights(self.filepath.format(step=step))


class KeepBest(Callback):
    """Plays greedy games now and then, and keeps the weights that did best so far.

    An agent that has learned its task forgets it now and then: which step of a training is the last
    decides much. As with the validation set of a classifier, these games are not those of the test.

    Args:
        filepath: of the `.weights.h5` file; beside it stands a `.json` with the score.
        env: an environment for these games alone. seed: of the first of them, each time the same.
        interval: steps between two trials, which wait for the end of an episode.
        episodes: games in a trial. Of equally good weights the later ones are kept.
    """

    def __init__(self, filepath, env, interval, episodes=20, seed=0):
        self.filepath, self.own_env = Path(filepath), env
        self.interval, self.episodes, self.seed = interval, episodes, seed
        self.score_path = self.filepath.with_suffix(".json")

    def on_train_begin(self):
        self.tried, self.best = self.agent.step, -np.inf
        if self.agent.step and self.score_path.exists():
            self.best = json.loads(self.score_path.read_text())["mean_reward"]

    def on_episode_end(self, episode, logs):
        if self.agent.step - self.tried >= self.interval:
            self.try_out()

    def on_train_end(self):
        finished = self.agent.step >= self.params["nb_steps"]  # not after an error or Ctrl-C
        if finished and self.agent.step > self.tried:
            self.try_out()

    def try_out(self):
        """Play, and keep the weights if they are the best so far."""
        self.tried = self.agent.step
        rewards = self.agent.test(self.own_env, self.episodes, verbose=0, seed=self.seed)
        if np.mean(rewards) >= self.best:
            self.best = float(np.mean(rewards))
            self.filepath.parent.mkdir(parents=True, exist_ok=True)
            self.agent.save_weights(self.filepath)
            self.score_path.write_text(
                json.dumps({"mean_reward": self.best, "step": self.agent.step})
            )


class Checkpoint(Callback):
    """Saves all that training needs to go on, every `interval` steps, between two episodes."""

    def __init__(self, folder, interval):
        self.folder, self.interval = Path(folder), interval
        self.saved = 0

    def on_train_begin(self):
        self.saved = self.agent.step

    def on_episode_end(self, episode, logs):
        if self.agent.step - self.saved >= self.interval:
            self.agent.save_checkpoint(self.folder)
            self.saved = self.agent.step


class TensorBoard(Callback):
    """Writes the figures of each episode for TensorBoard, over the number of steps."""

    def __init__(self, log_dir):
        self.log_dir = str(log_dir)

    def on_train_begin(self):
        import tensorflow as tf

        self.writer = tf.summary.create_file_writer(self.log_dir)

    def on_episode_end(self, episode, logs):
        import tensorflow as tf

        with self.writer.as_default(step=logs["nb_steps"]):
            for name, value in logs.items():
                if name != "nb_steps":
                    tf.summary.scalar(name, value)

    def on_train_end(self):
        self.writer.close()
