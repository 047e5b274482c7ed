"""What every agent does: play episodes, with training and without."""

import random
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from .callbacks import EpisodeLogger, History


class Env:
    """What an agent needs of an environment: `reset` and `step`, gymnasium's or the older gym's."""


class Processor:
    """Changes what goes from the environment to the agent and back; override what you need."""

    def process_step(self, observation, reward, done, info):
        observation = self.process_observation(observation)
        return observation, self.process_reward(reward), done, self.process_info(info)

    def process_observation(self, observation):
        return observation

    def process_reward(self, reward):
        return reward

    def process_info(self, info):
        return info

    def process_action(self, action):
        return action

    def process_state_batch(self, batch):
        """What goes into the network: states (n, window_length, *observation)."""
        return batch


@dataclass
class World:
    """An environment as agents want it: copies, one kind of answer, and the options of `fit`."""

    env: Any
    processor: Processor
    action_repetition: int = 1
    nb_max_start_steps: int = 0
    start_step_policy: Any = None
    nb_max_episode_steps: int | None = None

    def __post_init__(self):
        if self.action_repetition < 1:
            raise ValueError(f"action_repetition must be >= 1, is {self.action_repetition}")
        self.actions = getattr(self.env, "action_space", None)

    def reset(self):
        """The first observation of an episode."""
        self.steps = 0
        observation = self.env.reset()
        if isinstance(observation, tuple) and isinstance(observation[-1], dict):  # gymnasium
            observation = observation[0]
        # A copy: the environment may go on using its array.
        return self.processor.process_observation(deepcopy(observation))

    def start(self):
        """The first observation that the agent sees of an episode."""
        observation, limit = self.reset(), self.nb_max_start_steps
        for _ in range(random.randrange(limit) if limit else 0):
            policy = self.start_step_policy or (lambda _: self.actions.sample())
            observation, _, done, *_ = self._act(self.processor.process_action(policy(observation)))
            if done:
                return self.reset()
        return observation

    def step(self, action):
        """Observation, reward, done, truncated (done for lack of time alone) and info."""
        total = 0.0
        for _ in range(self.action_repetition):
            result = self._act(action + getattr(self.actions, "start", 0))
            observation, reward, done, truncated, info = result
            total += reward
            if done:
                break
        self.steps += 1
        late = not done and self.steps == self.nb_max_episode_steps
        return observation, total, done or late, truncated or late, info

    def _act(self, action):
        observation, reward, *ends, info = self.env.step(action)
        done = any(ends)
        truncated = not ends[0] if len(ends) == 2 else info.get("TimeLimit.truncated", False)
        step = self.processor.process_step(deepcopy(observation), reward, done, info)
        observation, reward, done, info = step
        return observation, reward, done, done and truncated, info


class Agent:
    """Acts in `forward`, learns in `backward`; an agent of yours has those two, and `compile`."""

    compiled = training = False
    truncated = False  # was the episode's last step its last for lack of time?
    step = 0  # of a training
    metrics_names = ()  # what `backward` returns

    def __init__(self, processor=None):
        self.processor = processor or Processor()

    def forward(self, observation):
        """An action."""
        raise NotImplementedError

    def backward(self, reward, terminal):
        """Learns from what the action has brought; returns the figures of `metrics_names`."""
        return []

    def _on_train_begin(self):
        """Called before a training."""

    def fit(
        self,
        env,
        nb_steps,
        action_repetition=1,
        callbacks=None,
        verbose=1,
        visualize=False,
        nb_max_start_steps=0,
        start_step_policy=None,
        log_interval=10000,
        nb_max_episode_steps=None,
        initial_step=0,
        initial_episode=0,
    ):
        """Train for `nb_steps` steps; Ctrl-C ends it early, with all callbacks.

        action_repetition: steps of the environment to an action.
        nb_max_start_steps: each episode begins with up to so many steps of `start_step_policy`, a
            function from observation to action (None: random), from which nothing is learned.
        nb_max_episode_steps: episodes are cut off after so many.
        verbose: 0 nothing, 1 a line each `log_interval` steps, 2 a line each episode.
        visualize: as it comes; an environment made with render_mode="human" is shown.
        initial_step, initial_episode: where a training goes on (as Keras's initial_epoch).

        Returns a History with the figures of all episodes.
        """
        self.training, self.step = True, initial_step
        self._on_train_begin()
        options = action_repetition, nb_max_start_steps, start_step_policy, nb_max_episode_steps
        loggers = [EpisodeLogger(log_interval if verbose == 1 else 1)] if verbose else []
        callbacks = [*(callbacks or []), *loggers]
        return self._run(World(env, self.processor, *options), callbacks, initial_episode, nb_steps)

    def test(self, env, nb_episodes=1, *, callbacks=None, visualize=True, verbose=1, **options):
        """Play `nb_episodes` episodes without learning; options and result as of `fit`."""
        before = self.training, self.step
        self.training, self.step = False, 0
        callbacks = [*(callbacks or []), *([EpisodeLogger()] if verbose else [])]
        try:
            world = World(env, self.processor, **options)
            return self._run(world, callbacks, nb_episodes=nb_episodes)
        finally:  # in the midst of a training, which goes on
            self.training, self.step = before

    def _run(self, world, callbacks, episode=0, nb_steps=np.inf, nb_episodes=np.inf):
        if not self.compiled:
            raise RuntimeError("compile() the agent before fit() and test()")
        history, aborted = History(), False
        callbacks = [*callbacks, history]
        for callback in callbacks:
            callback.set_model(self)
            callback.env = world.env
            callback.on_train_begin({})
        try:
            while self.step < nb_steps and episode < nb_episodes:
                self._play_episode(world, callbacks, episode, nb_steps)
                episode += 1
        except KeyboardInterrupt:
            if not self.training:
                raise
            aborted = True
        for callback in callbacks:
            callback.on_train_end({"did_abort": aborted})
        self.training = False
        return history

    def _play_episode(self, world, callbacks, episode, nb_steps):
        for callback in callbacks:
            callback.on_episode_begin(episode, {})
        observation, done = world.start(), False
        episode_reward, learned = 0.0, []
        while not done:
            if self.step >= nb_steps:
                return  # unfinished: no callback hears of its end
            action = self.processor.process_action(self.forward(observation))
            observation, reward, done, self.truncated, info = world.step(action)
            metrics = self.backward(reward, terminal=done)
            if not np.isnan(metrics).any():
                learned.append(metrics)
            episode_reward += reward
            logs = {"action": action, "observation": observation, "reward": reward}
            logs |= {"metrics": metrics, "episode": episode, "info": info}
            for callback in callbacks:
                callback.on_step_end(world.steps - 1, logs)
            self.step += 1
        # The agent sees the last observation, too; what it does there is not done.
        self.forward(observation)
        self.backward(0.0, terminal=False)
        logs = {"episode_reward": float(episode_reward), "nb_episode_steps": world.steps}
        means = np.mean(learned, axis=0).tolist() if learned else [None] * len(metrics)
        logs |= {"nb_steps": self.step, **dict(zip(self.metrics_names, means, strict=True))}
        for callback in callbacks:
            callback.on_episode_end(episode, logs)
