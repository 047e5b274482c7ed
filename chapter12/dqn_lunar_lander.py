"""Teach a deep Q-network to land on the moon (gymnasium's LunarLander-v3).

Book: chapter 12, "Lunar Lander".

    python chapter12/dqn_lunar_lander.py                      # trains
    python chapter12/dqn_lunar_lander.py --nb-steps 1000000   # as long as the book
    python chapter12/dqn_lunar_lander.py --evaluate           # test the saved network again

Eight numbers say where the lander is, how fast, how tilted, and whether its legs touch; it can do
nothing or fire one of three engines. A landing is worth about 200 points, a crash -100. What to
look for: at first the lander crashes, then it hovers until the time is over, since not to land is
better than to crash; only then it learns to land. The book's agent with two changes (double
Q-learning, a soft target network) learns it in a fraction of the book's million steps;
chapter12/README.md has the figures. Needs Box2D: pip install "gymnasium[box2d]".
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
from rl.callbacks import Checkpoint, FileLogger, KeepBest, TensorBoard
from rl.memory import SequentialMemory
from rl.policy import EpsGreedyQPolicy, LinearAnnealedPolicy
from visualize_log import plot_logs

ROOT = Path(__file__).resolve().parent.parent
RUNS_DIR = ROOT / "runs" / "chapter12"
ENV_NAME = "LunarLander-v3"
TEST_EPISODES = 100


def make_env(render_mode=None):
    """The environment.

    Raises:
        OSError: Box2D, its physics, is not installed.
    """
    try:
        return gymnasium.make(ENV_NAME, render_mode=render_mode)
    except gymnasium.error.DependencyNotInstalled as error:
        raise OSError(f'{ENV_NAME} needs Box2D: pip install "gymnasium[box2d]"') from error


def build_model(state_size=8, num_actions=4):
    """The book's network: hidden layers of 64, 32 and 16.

    Returns:
        keras.Model from states (n, 1, state_size) to Q-values (n, num_actions).
    """
    inputs = keras.Input(shape=(1, state_size), name="state")
    x = layers.Flatten(name="flatten")(inputs)
    for number, units in enumerate((64, 32, 16), start=1):
        x = layers.Dense(units, activation="relu", name=f"fc{number}")(x)
    outputs = layers.Dense(num_actions, activation="linear", name="q_values")(x)
    return keras.Model(inputs=inputs, outputs=outputs, name="dqn_lunar_lander")


def build_agent(seed=None):
    """The agent, compiled; docs/differences.md says what differs from the book's, and why."""
    policy = LinearAnnealedPolicy(
        EpsGreedyQPolicy(seed=seed),
        attr="eps",
        value_max=1.0,
        value_min=0.1,
        value_test=0.0,
        nb_steps=50_000,
    )
    agent = DQNAgent(
        model=build_model(),
        nb_actions=4,
        memory=SequentialMemory(limit=200_000, window_length=1, seed=seed),
        policy=policy,
        batch_size=64,
        nb_steps_warmup=1000,
        target_model_update=5e-3,
        train_interval=2,
        delta_clip=1.0,
        enable_double_dqn=True,
    )
    agent.compile(keras.optimizers.Adam(learning_rate=5e-4), metrics=["mae"])
    return agent


def build_callbacks(run_dir, resuming=False):
    """The best weights, a log of all episodes, and a checkpoint to go on from."""
    return [
        KeepBest(run_dir / "dqn.weights.h5", make_env(), interval=10_000),
        FileLogger(run_dir / "log.json", interval=1, append=resuming),
        TensorBoard(run_dir / "tb"),
        Checkpoint(run_dir / "checkpoint", interval=25_000),
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
    """Mean reward of random actions, and of gymnasium's own hand-written pilot."""
    from gymnasium.envs.box2d.lunar_lander import heuristic

    rng = np.random.default_rng(seed)
    rules = {
        "random": lambda observation: int(rng.integers(4)),
        "hand_written_pilot": lambda observation: int(heuristic(env.unwrapped, observation)),
    }
    return {
        f"{name}_mean_reward": float(np.mean(play(env, rule, TEST_EPISODES, seed)))
        for name, rule in rules.items()
    }


def train(agent, env, args):
    """Train, going on from a checkpoint; returns the seconds, None after a resumption."""
    args.run_dir.mkdir(parents=True, exist_ok=True)
    settings = {"seed": args.seed}
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
        callbacks=build_callbacks(args.run_dir, resuming=step > 0),
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
    parser.add_argument(
        "--nb-steps", type=positive, default=300_000, help="default: 300000 (the book: a million)"
    )
    parser.add_argument("--run-dir", type=Path, help="default: runs/chapter12/dqn_lunar_lander")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--verbose", type=int, choices=(0, 1, 2), default=1, help="default: 1")
    parser.add_argument("--evaluate", action="store_true", help="only test the saved network")
    args = parser.parse_args()
    if args.run_dir is None:
        args.run_dir = RUNS_DIR / "dqn_lunar_lander"
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
    try:
        env = make_env()
        agent = build_agent(args.seed)
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
        "script": "chapter12/dqn_lunar_lander.py",
        "data": ENV_NAME,
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
