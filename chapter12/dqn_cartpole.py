"""Teach a deep Q-network to balance a pole on a cart (gymnasium's CartPole-v1).

Book: chapter 12, "CartPole".

    python chapter12/dqn_cartpole.py                           # the book's 200-step episodes
    python chapter12/dqn_cartpole.py --max-episode-steps 500   # CartPole-v1's own limit
    python chapter12/dqn_cartpole.py --evaluate                # test the saved network again

The agent sees the cart's position and speed, the pole's angle and angular speed, and pushes left or
right; each step that the pole stands is worth 1. The episode ends when the pole leans more than 12
degrees (the book says 15), the cart leaves the track, or the limit is reached. What to look for:
rewards stay near 20 while epsilon is high and the memory fills, and then rise within a few thousand
steps. Beside it two rules without learning: random pushes, and pushing to where the pole falls.
chapter12/README.md has the figures.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import gymnasium
import keras
import numpy as np
from keras import layers
from rl.agents.dqn import DQNAgent
from rl.callbacks import Checkpoint, FileLogger, KeepBest, ModelIntervalCheckpoint, TensorBoard
from rl.memory import SequentialMemory
from rl.policy import EpsGreedyQPolicy, LinearAnnealedPolicy
from visualize_log import plot_logs

ROOT = Path(__file__).resolve().parent.parent
RUNS_DIR = ROOT / "runs" / "chapter12"
ENV_NAME = "CartPole-v1"
TEST_EPISODES = 100


def make_env(max_episode_steps=200):
    """The environment; the book's CartPole-v0 is this one with a limit of 200 steps."""
    return gymnasium.make(ENV_NAME, max_episode_steps=max_episode_steps)


def build_model(state_size=4, num_actions=2):
    """The book's network: three hidden layers of 16.

    Returns:
        keras.Model from states (n, 1, state_size) to Q-values (n, num_actions).
    """
    inputs = keras.Input(shape=(1, state_size), name="state")
    x = layers.Flatten(name="flatten")(inputs)
    for number in (1, 2, 3):
        x = layers.Dense(16, activation="relu", name=f"fc{number}")(x)
    outputs = layers.Dense(num_actions, activation="linear", name="q_values")(x)
    return keras.Model(inputs=inputs, outputs=outputs, name="dqn_cartpole")


def build_agent(seed=None, double_dqn=False):
    """The book's agent, compiled: soft target updates of 1 %, epsilon from 1 to 0.1 in 10,000."""
    policy = LinearAnnealedPolicy(
        EpsGreedyQPolicy(seed=seed),
        attr="eps",
        value_max=1.0,
        value_min=0.1,
        value_test=0.05,
        nb_steps=10_000,
    )
    agent = DQNAgent(
        model=build_model(),
        nb_actions=2,
        memory=SequentialMemory(limit=50_000, window_length=1, seed=seed),
        policy=policy,
        nb_steps_warmup=1000,
        target_model_update=1e-2,
        enable_double_dqn=double_dqn,
    )
    agent.compile(keras.optimizers.Adam(learning_rate=1e-3), metrics=["mae"])
    return agent


def build_callbacks(run_dir, max_episode_steps=200, resuming=False):
    """The best weights and those every 10,000 steps, a log, and a checkpoint to go on from."""
    return [
        KeepBest(run_dir / "dqn.weights.h5", make_env(max_episode_steps), interval=2500),
        ModelIntervalCheckpoint(run_dir / "weights_{step}.weights.h5", interval=10_000),
        FileLogger(run_dir / "log.json", interval=1, append=resuming),
        TensorBoard(run_dir / "tb"),
        Checkpoint(run_dir / "checkpoint", interval=5000),
    ]


def play(env, choose, episodes, seed):
    """Rewards of `episodes` played by a function from observation to action."""
    rewards = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed if episode == 0 else None)
        total, done = 0.0, False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(choose(observation))
            total, done = total + float(reward), terminated or truncated
        rewards.append(total)
    return rewards


def score_baselines(env, seed):
    """Mean reward of two rules that learn nothing."""
    rng = np.random.default_rng(seed)
    rules = {
        "random": lambda observation: int(rng.integers(2)),
        "push_where_it_falls": lambda observation: int(observation[2] + observation[3] > 0),
    }
    return {
        f"{name}_mean_reward": float(np.mean(play(env, rule, TEST_EPISODES, seed)))
        for name, rule in rules.items()
    }


def train(agent, env, args):
    """Train, going on from a checkpoint; returns the seconds, None after a resumption."""
    args.run_dir.mkdir(parents=True, exist_ok=True)
    settings = {
        "seed": args.seed,
        "max_episode_steps": args.max_episode_steps,
        "double_dqn": args.double_dqn,
    }
    settings_path, checkpoint = args.run_dir / "settings.json", args.run_dir / "checkpoint"
    step = 0
    if settings_path.exists() and json.loads(settings_path.read_text()) == settings:
        step = agent.load_checkpoint(checkpoint)
    if step:
        print(
            f"Resuming the interrupted run in {args.run_dir} after step {step:,} "
            f"({agent.memory.nb_entries:,} entries in memory)."
        )
    else:
        for old in [*args.run_dir.glob("*weights*"), args.run_dir / "log.json"]:
            old.unlink(missing_ok=True)
        for folder in (checkpoint, args.run_dir / "tb"):
            shutil.rmtree(folder, ignore_errors=True)
    settings_path.write_text(json.dumps(settings))
    start = time.perf_counter()
    agent.fit(
        env,
        nb_steps=args.nb_steps,
        callbacks=build_callbacks(args.run_dir, args.max_episode_steps, resuming=step > 0),
        verbose=args.verbose,
        seed=args.seed + step,  # a resumed run must not play its first episodes again
    )
    agent.load_weights(args.run_dir / "dqn.weights.h5")
    shutil.rmtree(checkpoint, ignore_errors=True)  # finished: the next run starts afresh
    return None if step else round(time.perf_counter() - start, 1)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nb-steps", type=positive, default=50_000, help="default: 50000")
    parser.add_argument(
        "--max-episode-steps", type=positive, default=200, help="default: 200, as in the book"
    )
    parser.add_argument("--double-dqn", action="store_true", help="double Q-learning")
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter12/dqn_cartpole")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--verbose", type=int, choices=(0, 1, 2), default=1, help="default: 1")
    parser.add_argument("--evaluate", action="store_true", help="only test the saved network")
    args = parser.parse_args()
    if args.run_dir is None:
        args.run_dir = RUNS_DIR / "dqn_cartpole"
    return args


def positive(text):
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def main():
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    device = keras.distribution.list_devices()[0]
    device += f" ({os.cpu_count()} cores)" if device.startswith("cpu") else ""
    print(f"Keras {keras.__version__}, device: {device}, environment: {ENV_NAME}")
    env = make_env(args.max_episode_steps)
    try:
        agent = build_agent(args.seed, args.double_dqn)
        if args.evaluate:
            agent.load_weights(args.run_dir / "dqn.weights.h5")
        else:
            agent.model.summary()
            seconds = train(agent, env, args)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last checkpoint.")
    rewards = agent.test(env, TEST_EPISODES, verbose=0, seed=10_000 + args.seed)
    baselines = score_baselines(env, 10_000 + args.seed)
    print(f"Mean reward of {TEST_EPISODES} test episodes: {np.mean(rewards):.1f}")
    for name, mean in baselines.items():
        print(f"  {name.removesuffix('_mean_reward').replace('_', ' ')}: {mean:.1f}")
    if args.evaluate:
        return
    plot_logs([args.run_dir / "log.json"], args.run_dir / "rewards.png")
    metrics = {
        "script": "chapter12/dqn_cartpole.py",
        "data": f"{ENV_NAME}, {args.max_episode_steps} steps an episode at most",
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "tensorflow": sys.modules["tensorflow"].__version__,
            "gymnasium": importlib.metadata.version("gymnasium"),
        },
        "device": device,
        "steps": args.nb_steps,
        "episodes": agent.episode,
        "seconds": seconds,
        "parameters": agent.model.count_params(),
        "val": json.loads((args.run_dir / "dqn.weights.json").read_text()),
        "test": {
            "mean_reward": float(np.mean(rewards)),
            "std_reward": float(np.std(rewards)),
            "min_reward": float(np.min(rewards)),
        },
        "baselines": baselines,
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"Weights, log, metrics and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
