"""A run and its folder, which keras-rl does not have: to go on, to keep the best, to compare."""

import json
from pathlib import Path

import keras
import numpy as np

from .callbacks import Callback
from .core import Agent
from .logs import plot_logs, read_log


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
    read_best(run_dir)  # damaged? Now is the time to say so
    steps = json.loads((run_dir / "log.json").read_text())["nb_steps"]
    return keras.models.load_model(saved[step]), step, sum(n <= step for n in steps)


def read_best(run_dir):
    """The mean reward of the best network so far; of a run that was interrupted early, -inf."""
    note = run_dir / "best.json"
    return json.loads(note.read_text())["mean_reward"] if note.exists() else -np.inf


class KeepNetworks(Callback):
    """Keeps the last network and the best one, each `interval` steps and at the end.

    last_{step}.keras, with its optimizer, takes the place of the one before; `log`, a FileLogger,
    is written with it. model.keras did best in `episodes` greedy games (of equals the later), and
    best.json says when: an agent that has learned its task forgets it now and then, and which step
    of a training is the last decides much. As with a validation set, these games are not those of
    the test. `env` is for them alone.
    """

    def __init__(self, run_dir, env, log, interval, episodes=20):
        self.run_dir, self.trial_env, self.log = Path(run_dir), env, log
        self.interval, self.episodes = interval, episodes

    def on_train_begin(self, logs=None):
        self.saved = self.model.step
        self.best = read_best(self.run_dir) if self.model.step else -np.inf

    def on_episode_end(self, episode, logs=None):
        if self.model.step - self.saved >= self.interval:
            self.keep_best()
            self.keep_last()

    def on_train_end(self, logs=None):
        if self.model.step > self.saved:
            if not logs["did_abort"]:
                self.keep_best()
            self.keep_last()

    def keep_best(self):
        self.trial_env.reset(seed=0)
        history = self.model.test(self.trial_env, self.episodes, visualize=False, verbose=0)
        reward = float(np.mean(history.history["episode_reward"]))
        if reward >= self.best:
            self.best = reward
            self.save("model.keras")
            note = {"mean_reward": reward, "step": self.model.step, "episodes": self.episodes}
            (self.run_dir / "new_best.json").write_text(json.dumps(note))
            (self.run_dir / "new_best.json").replace(self.run_dir / "best.json")

    def keep_last(self):
        self.log.save_data()  # first: the network's episodes must be in it
        before, self.saved = self.saved, self.model.step
        self.save(f"last_{self.saved}.keras")
        (self.run_dir / f"last_{before}.keras").unlink(missing_ok=True)

    def save(self, name):
        self.model.model.save(self.run_dir / "new.keras")
        (self.run_dir / "new.keras").replace(self.run_dir / name)  # a kill leaves one that is whole


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


def summarize(run_dir):
    """Draw the rewards; number of episodes, seconds of training, the best trial as a dict."""
    plot_logs([run_dir / "log.json"], run_dir / "rewards.png")
    log, best = read_log(run_dir / "log.json"), json.loads((run_dir / "best.json").read_text())
    return {"episodes": len(log), "seconds": log["duration"].sum(), "best": best}
