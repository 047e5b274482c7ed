"""What every agent does: play episodes, with training and without."""

import random
from copy import deepcopy

import numpy as np
from keras.callbacks import History

from .callbacks import CallbackList, TestLogger, TrainIntervalLogger, Visualizer


class Env:
    """What an agent needs of an environment: `reset` and `step`, gymnasium's or the older gym's."""

    action_space = observation_space = None


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

    def reset_states(self):
        """Called before each episode."""

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
        verbose: 0 nothing, 1 a line each `log_interval` steps, 2 a line each episode.
        visualize: render each step.
        nb_max_start_steps: each episode begins with up to this many steps of `start_step_policy`,
            a function from observation to action (None: random), from which nothing is learned.
        nb_max_episode_steps: cut episodes off after this many.
        initial_step, initial_episode: where a training goes on (as Keras's initial_epoch).

        Returns a History with the figures of all episodes.
        """
        logger = TrainIntervalLogger(log_interval if verbose == 1 else 1)
        self.training, self.step = True, initial_step
        return self._run(
            env,
            [*(callbacks or []), *([logger] if verbose else []), *[Visualizer()] * visualize],
            {"nb_steps": nb_steps},
            (action_repetition, nb_max_episode_steps, nb_max_start_steps, start_step_policy),
            initial_episode,
        )

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
        try:
            return self._run(
                env,
                [*(callbacks or []), *[TestLogger()] * bool(verbose), *[Visualizer()] * visualize],
                {"nb_episodes": nb_episodes},
                (action_repetition, nb_max_episode_steps, nb_max_start_steps, start_step_policy),
            )
        finally:  # in the midst of a training, which goes on
            self.training, self.step, self.truncated = before

    def _run(self, env, callbacks, params, options, episode=0):
        if not self.compiled:
            raise RuntimeError("compile() the agent before fit() and test()")
        if options[0] < 1:
            raise ValueError(f"action_repetition must be >= 1, is {options[0]}")
        history = History()
        callbacks = CallbackList([*callbacks, history], self, env, params)
        if self.training:
            self._on_train_begin()
        callbacks.on_train_begin({})
        last_step, last_episode = params.get("nb_steps"), params.get("nb_episodes")
        aborted = False
        try:
            while self.step < last_step if self.training else episode < last_episode:
                self._play_episode(env, callbacks, episode, last_step, *options)
                episode += 1
        except KeyboardInterrupt:
            if not self.training:
                raise
            aborted = True
        callbacks.on_train_end({"did_abort": aborted})
        self.training = False
        return history

    def _play_episode(
        self,
        env,
        callbacks,
        episode,
        last_step,
        repetition,
        max_steps,
        max_start_steps,
        start_policy,
    ):
        callbacks.on_episode_begin(episode, {})
        self.reset_states()
        observation = self._start(env, callbacks, max_start_steps, start_policy)
        episode_reward, episode_step, learned, done = 0.0, 0, [], False
        space = getattr(env, "action_space", None)
        first = space.start if hasattr(space, "n") and hasattr(space, "start") else 0
        while not done:
            if self.training and self.step >= last_step:
                return  # unfinished: no callback hears of its end
            callbacks.on_step_begin(episode_step, {})
            action = self.processor.process_action(self.forward(observation))
            reward = 0.0
            for _ in range(repetition):
                observation, r, done, info = self._act(env, callbacks, action + first)
                reward += r
                if done:
                    break
            if max_steps and episode_step >= max_steps - 1 and not done:
                done = self.truncated = True
            metrics = self.backward(reward, terminal=done)
            if not np.isnan(metrics).any():
                learned.append(metrics)
            episode_reward += reward
            logs = {"action": action, "observation": observation, "reward": reward}
            logs |= {"metrics": metrics, "episode": episode, "info": info}
            callbacks.on_step_end(episode_step, logs)
            episode_step += 1
            self.step += 1
        # The agent sees the last observation, too; what it does there is not done.
        self.forward(observation)
        self.truncated = False
        self.backward(0.0, terminal=False)
        logs = {"episode_reward": float(episode_reward), "nb_episode_steps": episode_step}
        logs["nb_steps"] = self.step if self.training else episode_step
        if self.training:
            means = np.mean(learned, axis=0).tolist() if learned else [None] * len(metrics)
            logs |= dict(zip(self.metrics_names, means, strict=True))
        callbacks.on_episode_end(episode, logs)

    def _start(self, env, callbacks, max_start_steps, start_policy):
        """The first observation of an episode."""
        observation = self._reset(env)
        for _ in range(random.randrange(max_start_steps) if max_start_steps else 0):
            action = start_policy(observation) if start_policy else env.action_space.sample()
            action = self.processor.process_action(action)
            observation, _, done, _ = self._act(env, callbacks, action)
            if done:
                return self._reset(env)
        return observation

    def _reset(self, env):
        observation = env.reset()
        if isinstance(observation, tuple) and isinstance(observation[-1], dict):  # gymnasium
            observation = observation[0]
        # A copy: the environment may go on using its array.
        return self.processor.process_observation(deepcopy(observation))

    def _act(self, env, callbacks, action):
        callbacks.on_action_begin(action, {})
        observation, reward, *ends, info = env.step(action)
        done = bool(any(ends))
        if len(ends) == 2:  # gymnasium
            self.truncated = done and not ends[0]
        else:
            self.truncated = done and bool(info.get("TimeLimit.truncated", False))
        result = self.processor.process_step(deepcopy(observation), reward, done, info)
        callbacks.on_action_end(action, {})
        return result
