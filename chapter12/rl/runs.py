"""A run and its folder, which keras-rl does not have: to go on, to keep the best, to compare."""

import json
from pathlib import Path

import keras
import numpy as np

from .callbacks import Callback
from .core import Agent


def open_run(run_dir, settings):
    """The last network of the same run in `run_dir`, if any, its steps and its episodes."""
    run_dir.mkdir(parents=True, exist_ok=True)
    noted = run_dir / "settings.json"
    if not any(run_dir.iterdir()):
        noted.write_text(json.dumps(settings))
    if not noted.exists() or json.loads(noted.read_text()) != settings:
        raise ValueError(f"{run_dir} holds other files or settings; give another --run-dir")
    saved = {int(path.stem[5:]): path for path in run_dir.glob("last_[0-9]*.keras")}
    if not saved:
        return None, 0, 0
    step = max(saved)
    steps = json.loads((run_dir / "log.json").read_text())["nb_steps"]
    return keras.models.load_model(saved[step]), step, sum(n <= step for n in steps)


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
        self.log.save_data()  # first: the network's episodes must be in it
        before, last = (self.run_dir / f"last_{n}.keras" for n in (self.saved, self.model.step))
        self.model.model.save(self.run_dir / "new_last.keras")
        (self.run_dir / "new_last.keras").replace(last)  # a kill leaves one that is whole
        if before != last:
            before.unlink(missing_ok=True)
        self.saved = self.model.step


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


class RuleAgent(Agent):
    """Acts by `rule`, a function from observation to action, and learns nothing: a baseline."""

    def __init__(self, rule):
        super().__init__()
        self.forward, self.compiled = rule, True

    def backward(self, reward, terminal):
        return []


def compare(agent, rules, env, episodes, seed):
    """Rewards without learning, as a dict: of an agent, and means of rules in the same episodes."""
    keras.utils.set_random_seed(seed)
    players = {"agent": agent} | {name: RuleAgent(rule) for name, rule in rules.items()}
    rewards = {}
    for name, player in players.items():
        env.reset(seed=seed)
        history = player.test(env, episodes, visualize=False, verbose=0).history
        rewards[name] = np.array(history["episode_reward"])
        print(f"{rewards[name].mean():8.1f} mean reward of {episodes} episodes, {name}")
    test = rewards.pop("agent")
    baselines = {f"{name}_mean_reward": values.mean() for name, values in rewards.items()}
    scores = {"mean_reward": test.mean(), "std_reward": test.std(), "min_reward": test.min()}
    return {"test": scores, "baselines": baselines}
