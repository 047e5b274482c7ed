"""A run and its folder, which keras-rl does not have: to go on, to keep the best, to compare."""

import json
from pathlib import Path

import keras
import numpy as np

from .callbacks import Callback
from .core import Agent
from .logs import plot_logs, read_log


def open_run(run_dir, settings):
    """The last network of the same run in `run_dir`, if any, its steps and its episodes.

    Seeds with `settings["seed"]` and the steps: a run that goes on has random numbers of its own.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    noted = run_dir / "settings.json"
    if not any(run_dir.iterdir()):
        noted.write_text(json.dumps(settings))
    if not noted.exists() or json.loads(noted.read_text()) != settings:
        raise ValueError(f"{run_dir} holds other files or settings; give another --run-dir")
    step = max((int(path.stem[5:]) for path in run_dir.glob("last_[0-9]*.keras")), default=0)
    model, episode = None, 0
    if step:
        log = json.loads((run_dir / "log.json").read_text())
        episode = sum(steps <= step for steps in log.get("nb_steps", []))
        model = keras.models.load_model(run_dir / f"last_{step}.keras")
    keras.utils.set_random_seed(settings["seed"] + step)
    return model, step, episode


def play(agent, env, episodes, seed):
    """The rewards of `episodes` without learning; `seed` is for the first, the others follow."""
    env.reset(seed=seed)
    history = agent.test(env, episodes, visualize=False, verbose=0).history
    return np.array(history["episode_reward"])


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
        note = self.run_dir / "best.json"
        self.best = json.loads(note.read_text())["mean_reward"] if note.exists() else -np.inf

    def on_train_begin(self, logs=None):
        self.saved = self.model.step

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
        reward = float(play(self.model, self.trial_env, self.episodes, seed=0).mean())
        if reward >= self.best:
            self.best = reward
            note = {"mean_reward": reward, "step": self.model.step, "episodes": self.episodes}
            self.write("model.keras", self.model.model.save)
            self.write("best.json", lambda path: path.write_text(json.dumps(note)))

    def keep_last(self):
        self.log.save_data()  # first: the network's episodes must be in it
        before, self.saved = self.saved, self.model.step
        self.write(f"last_{self.saved}.keras", self.model.model.save)
        (self.run_dir / f"last_{before}.keras").unlink(missing_ok=True)

    def write(self, name, save):
        new = self.run_dir / f"new{Path(name).suffix}"
        save(new)
        new.replace(self.run_dir / name)  # a kill leaves the old one or the new one, and both whole


class RuleAgent(Agent):
    """Acts by `rule`, a function from observation to action, and learns nothing: a baseline."""

    def __init__(self, rule):
        super().__init__()
        self.forward, self.compiled = rule, True


def compare(agent, rules, env, episodes, seed):
    """Rewards without learning, as a dict: of an agent, and means of rules in the same episodes."""
    keras.utils.set_random_seed(seed)
    players = {"agent": agent} | {name: RuleAgent(rule) for name, rule in rules.items()}
    rewards = {}
    for name, player in players.items():
        rewards[name] = play(player, env, episodes, seed)
        print(f"{rewards[name].mean():8.1f} mean reward of {episodes} episodes, {name}")
    test = rewards.pop("agent")
    baselines = {f"{name}_mean_reward": values.mean() for name, values in rewards.items()}
    scores = {"mean_reward": test.mean(), "std_reward": test.std(), "min_reward": test.min()}
    return {"test": scores, "baselines": baselines}


def write_metrics(run_dir, metrics):
    """Draw the rewards; write `metrics` and what the log says of the training."""
    plot_logs([run_dir / "log.json"], run_dir / "rewards.png")
    log, best = read_log(run_dir / "log.json"), json.loads((run_dir / "best.json").read_text())
    metrics |= {"episodes": len(log), "seconds": log["duration"].sum(), "best": best}
    (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"Networks, log, metrics and a picture are in {run_dir}")
