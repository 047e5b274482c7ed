"""What every agent does: play episodes, with training and without."""

import random
from copy import deepcopy

import numpy as np

from .callbacks import EpisodeLogger, History


class Env:
    """What an agent needs of an environment: `reset` and `step`, gymnasium's or the older gym's."""

    action_space = None


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


class World:
    """An environment as agents want it: copies, one kind of answer, repeated actions, limits."""

    def __init__(self, env, processor, repetition=1, start_steps=0, start_policy=None, limit=None):
        if repetition < 1:
            raise ValueError(f"action_repetition must be >= 1, is {repetition}")
        self.env, self.processor, self.repetition = env, processor, repetition
        self.start_steps, self.start_policy, self.limit = start_steps, start_policy, limit
        self.first_action = getattr(getattr(env, "action_space", None), "start", 0)

    def reset(self, start_steps=None):
        """The first observation that the agent sees of an episode."""
        observation = self.env.reset()
        if isinstance(observation, tuple) and isinstance(observation[-1], dict):  # gymnasium
            observation = observation[0]
        # A copy: the environment may go on using its array.
        observation = self.processor.process_observation(deepcopy(observation))
        limit = self.start_steps if start_steps is None else start_steps
        for _ in range(random.randrange(limit) if limit else 0):
            policy = self.start_policy or (lambda _: self.env.action_space.sample())
            action = self.processor.process_action(policy(observation))
            observation, _, done, *_ = self._act(action)
            if done:
                return self.reset(start_steps=0)
        self.steps = 0
        return observation

    def step(self, action):
        """Observation, reward, done, truncated (done for lack of time alone) and info."""
        total = 0.0
        for _ in range(self.repetition):
            observation, reward, done, truncated, info = self._act(action + self.first_action)
            total += reward
            if done:
                break
        self.steps += 1
        late = not done and self.steps == self.limit
        return observation, total, done or late, truncated or late, info

    def _act(self, action):
        observation, reward, *ends, info = self.env.step(action)
        done = any(ends)
        ended = ends[0] if len(ends) == 2 else not info.get("TimeLimit.truncated", False)
        processed = self.processor.process_step(deepcopy(observation), reward, done, info)
        observation, reward, done, info = processed
        return observation, reward, done, done and not ended, info


class Agent:
    """Acts in `forward`, learns in `backward`; an agent of yours has those two, and `compile`."""

    metrics_names = ()  # what `backward` returns

    def __init__(self, processor=None):
        self.processor = processor or Processor()
        self.compiled = self.training = False
        self.step = 0  # of a training
        self.truncated = False  # was the episode's last step its last for lack of time?

    def forward(self, observation):
        """An action."""
        raise NotImplementedError

    def backward(self, reward, terminal):
        """Learns from what the action has brought; returns the figures of `metrics_names`."""
        raise NotImplementedError

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
        loggers = [EpisodeLogger(log_interval if verbose == 1 else 1)] if verbose else []
        options = action_repetition, nb_max_start_steps, start_step_policy, nb_max_episode_steps
        world, callbacks = World(env, self.processor, *options), [*(callbacks or []), *loggers]
        return self._run(world, callbacks, initial_episode, nb_steps=nb_steps)

    def test(
        self,
        env,
        nb_episodes=1,
        action_repetition=1,
        callbacks=None,
        visualize=True,
        nb_max_episode_steps=None,
        nb_max_start_steps=0,
        start_step_policy=None,
        verbose=1,
    ):
        """Play `nb_episodes` episodes without learning; arguments and result as of `fit`."""
        before = self.training, self.step, self.truncated
        self.training, self.step = False, 0
        options = action_repetition, nb_max_start_steps, start_step_policy, nb_max_episode_steps
        callbacks = [*(callbacks or []), *([EpisodeLogger()] if verbose else [])]
        try:
            world = World(env, self.processor, *options)
            return self._run(world, callbacks, nb_episodes=nb_episodes)
        finally:  # in the midst of a training, which goes on
            self.training, self.step, self.truncated = before

    def _run(self, world, callbacks, episode=0, nb_steps=np.inf, nb_episodes=np.inf):
        if not self.compiled:
            raise RuntimeError("compile() the agent before fit() and test()")
        history = History()
        callbacks = [*callbacks, history]
        aborted = False
        for callback in callbacks:
            callback.model, callback.env = self, world.env
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
        observation = world.reset()
        episode_reward, learned, done = 0.0, [], False
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
        self.truncated = False
        self.backward(0.0, terminal=False)
        logs = {"episode_reward": float(episode_reward), "nb_episode_steps": world.steps}
        logs["nb_steps"] = self.step
        means = np.mean(learned, axis=0).tolist() if learned else [None] * len(metrics)
        logs |= dict(zip(self.metrics_names, means, strict=True))
        for callback in callbacks:
            callback.on_episode_end(episode, logs)
