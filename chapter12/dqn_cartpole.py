"""Teach a deep Q-network to balance a pole on a cart (gymnasium's CartPole-v1).

Book: chapter 12, "CartPole".

    python chapter12/dqn_cartpole.py                           # the book's 200-step episodes
    python chapter12/dqn_cartpole.py --max-episode-steps 500 --run-dir runs/cartpole_500   # its own
    python chapter12/dqn_cartpole.py --env Acrobot-v1 --run-dir runs/acrobot    # discrete actions

The agent sees the cart's position and speed, the pole's angle and angular speed, and pushes left or
right; each step that the pole stands is worth 1. Rewards stay near 20 while epsilon is high and the
memory fills; then they rise within a few thousand steps. chapter12/README.md has the figures.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import gymnasium
import keras
from keras import layers
from rl.agents.dqn import DQNAgent
from rl.callbacks import FileLogger, ModelIntervalCheckpoint
from rl.memory import SequentialMemory
from rl.policy import EpsGreedyQPolicy, LinearAnnealedPolicy
from rl.runs import KeepNetworks, compare, open_run, write_metrics


def make_env(name="CartPole-v1", max_episode_steps=200):
    """The environment; the book's CartPole-v0 is CartPole-v1 with at most 200 steps an episode."""
    env = gymnasium.make(name, max_episode_steps=max_episode_steps)
    if not isinstance(env.action_space, gymnasium.spaces.Discrete):
        raise ValueError(f"its actions are {env.action_space}; a deep Q-network needs Discrete")
    return gymnasium.wrappers.FlattenObservation(env)  # of a number, a dict, an image, too


def build_model(state_size, num_actions):
    """The book's network: states (n, 1, state_size) to Q-values (n, num_actions)."""
    inputs = keras.Input(shape=(1, state_size), name="state")
    x = layers.Flatten(name="flatten")(inputs)
    x = layers.Dense(16, activation="relu", name="fc1")(x)
    x = layers.Dense(16, activation="relu", name="fc2")(x)
    x = layers.Dense(16, activation="relu", name="fc3")(x)
    outputs = layers.Dense(num_actions, activation="linear", name="q_values")(x)
    return keras.Model(inputs=inputs, outputs=outputs, name="dqn_cartpole")


def build_agent(model):
    """The book's agent, compiled; with keras-rl 0.4 that is double Q-learning."""
    policy = LinearAnnealedPolicy(
        EpsGreedyQPolicy(), attr="eps", value_max=1, value_min=0.1, value_test=0.05, nb_steps=10000
    )
    dqn = DQNAgent(
        model=model,
        nb_actions=model.output_shape[-1],
        memory=SequentialMemory(limit=50000, window_length=1),
        nb_steps_warmup=1000,
        target_model_update=1e-2,
        policy=policy,
    )
    optimizer = getattr(model, "optimizer", None) or keras.optimizers.Adam(learning_rate=1e-3)
    dqn.compile(optimizer, metrics=["mae"])
    return dqn


def build_callbacks(run_dir, env):
    """Weights every 10,000 steps, a log, the last network and the best one by games in `env`."""
    weights = ModelIntervalCheckpoint(run_dir / "weights_{step}.weights.h5", interval=10000)
    log = FileLogger(run_dir / "log.json", interval=100)
    return [weights, log, KeepNetworks(run_dir, env, log, interval=2500)]


def report(best, env, seed):
    """Rewards of 100 episodes of the best network, and of rules that learn nothing, as a dict."""
    dqn = build_agent(keras.models.load_model(best))
    rules = {"random": lambda state: random.randrange(dqn.nb_actions)}
    if env.spec.id == "CartPole-v1":
        rules["push_where_it_falls"] = lambda state: int(state[2] + state[3] > 0)
    return compare(dqn, rules, env, episodes=100, seed=seed)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="CartPole-v1", help="default: CartPole-v1")
    parser.add_argument("--nb-steps", type=int, default=50000, help="default: 50000")
    parser.add_argument("--max-episode-steps", type=int, help="default: 200, others: their own")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--run-dir", type=Path, help="default: runs/dqn_cartpole")
    parser.add_argument("--evaluate", action="store_true", help="only test the saved network")
    args = parser.parse_args()
    if args.env == "CartPole-v1" and args.max_episode_steps is None:
        args.max_episode_steps = 200  # the book's CartPole-v0
    name = "cartpole" if args.env == "CartPole-v1" else args.env.replace("/", ":").split(":")[-1]
    args.run_dir = args.run_dir or Path("runs", f"dqn_{name}")
    if args.nb_steps < 1 or not 0 <= args.seed < 2**31:
        parser.error("--nb-steps begins at 1, --seed at 0")
    return args


def main():
    args = parse_arguments()
    run_dir, best = args.run_dir, args.run_dir / "model.keras"
    try:
        env, trials = (make_env(args.env, args.max_episode_steps) for _ in range(2))
        settings = {"script": "dqn_cartpole", "env": args.env, "seed": args.seed}
        settings |= {"max_episode_steps": args.max_episode_steps}
        if args.evaluate:
            if json.loads((run_dir / "settings.json").read_text())["env"] != args.env:
                raise ValueError(f"{best} was trained in another environment")
            return report(best, env, args.seed + 10000)
        model, step, episode = open_run(run_dir, settings)
        env.reset(seed=args.seed + step)
        sizes = int(env.observation_space.shape[0]), int(env.action_space.n)
        dqn = build_agent(model or build_model(*sizes))
        callbacks = build_callbacks(run_dir, trials)
    except Exception as error:  # gymnasium, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.env}: {' '.join(str(error).split())[:500]}")
    dqn.model.summary()
    dqn.fit(env, args.nb_steps, callbacks=callbacks, initial_step=step, initial_episode=episode)
    if dqn.step < args.nb_steps:
        sys.exit("Interrupted: the same command goes on")
    scores = report(best, env, args.seed + 10000)
    write_metrics(run_dir, settings | {"steps": dqn.step} | scores)


if __name__ == "__main__":
    main()
