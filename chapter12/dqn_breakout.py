"""Teach a deep Q-network to play Breakout from the pixels, with DeepMind's network.

Book: chapter 12, whose repository carries this example ("easily extended to Atari problems").

    python chapter12/dqn_breakout.py                        # a GPU and a day or two
    python chapter12/dqn_breakout.py --nb-steps 20000 --memory-limit 20000    # to see it run

Network and settings are those of Mnih et al. (2015): four grey frames of 84x84 pixels in, three
convolutions, a dense layer of 512, four actions out; one action lasts four frames. What to look
for: the mean Q-value rises long before the score does. Needs Atari: pip install ale-py.
chapter12/README.md says what a full training takes.
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
from rl.callbacks import Checkpoint, FileLogger, ModelIntervalCheckpoint, TensorBoard
from rl.memory import SequentialMemory
from rl.policy import EpsGreedyQPolicy, LinearAnnealedPolicy
from rl.processor import AtariProcessor
from visualize_log import plot_logs

ROOT = Path(__file__).resolve().parent.parent
RUNS_DIR = ROOT / "runs" / "chapter12"
ENV_NAME = "ALE/Breakout-v5"
INPUT_SHAPE = (84, 84)
WINDOW_LENGTH = 4


def make_env(render_mode=None):
    """The environment, with the rules of the 2015 paper: four frames to an action, no stickiness.

    The book's `BreakoutDeterministic-v4` was the same under another name.

    Raises:
        OSError: ale-py, the Atari emulator, is not installed.
    """
    try:
        import ale_py
    except ImportError as error:
        raise OSError(f"{ENV_NAME} needs the Atari emulator: pip install ale-py") from error
    gymnasium.register_envs(ale_py)
    return gymnasium.make(
        ENV_NAME, frameskip=4, repeat_action_probability=0.0, render_mode=render_mode
    )


def build_model(num_actions=4):
    """DeepMind's network of 2015.

    Returns:
        keras.Model from four frames (n, 4, 84, 84), 0-255, to Q-values (n, num_actions).
    """
    inputs = keras.Input(shape=(WINDOW_LENGTH, *INPUT_SHAPE), name="frames")
    x = layers.Permute((2, 3, 1), name="frames_last")(inputs)
    x = layers.Rescaling(1 / 255, name="rescale")(x)
    x = layers.Conv2D(32, (8, 8), strides=4, activation="relu", name="conv1")(x)
    x = layers.Conv2D(64, (4, 4), strides=2, activation="relu", name="conv2")(x)
    x = layers.Conv2D(64, (3, 3), strides=1, activation="relu", name="conv3")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(512, activation="relu", name="fc1")(x)
    outputs = layers.Dense(num_actions, activation="linear", name="q_values")(x)
    return keras.Model(inputs=inputs, outputs=outputs, name="dqn_breakout")


def build_agent(seed=None, memory_limit=1_000_000, warmup=50_000, anneal=1_000_000):
    """The paper's agent, compiled, with Adam in place of its RMSProp and double Q-learning."""
    policy = LinearAnnealedPolicy(
        EpsGreedyQPolicy(seed=seed),
        attr="eps",
        value_max=1.0,
        value_min=0.1,
        value_test=0.05,
        nb_steps=anneal,
    )
    agent = DQNAgent(
        model=build_model(),
        nb_actions=4,
        memory=SequentialMemory(memory_limit, WINDOW_LENGTH, seed=seed),
        policy=policy,
        test_policy=EpsGreedyQPolicy(eps=0.05, seed=seed),  # a greedy player may never serve
        nb_steps_warmup=warmup,
        target_model_update=10_000,
        train_interval=4,
        delta_clip=1.0,
        enable_double_dqn=True,
        processor=AtariProcessor(INPUT_SHAPE),
    )
    agent.compile(keras.optimizers.Adam(learning_rate=0.0001), metrics=["mae"])
    return agent


def build_callbacks(run_dir, interval, resuming=False):
    """Weights and a checkpoint every `interval` steps, and a log of all episodes."""
    return [
        ModelIntervalCheckpoint(run_dir / "weights_{step}.weights.h5", interval=interval),
        FileLogger(run_dir / "log.json", interval=1, append=resuming),
        TensorBoard(run_dir / "tb"),
        Checkpoint(run_dir / "checkpoint", interval=interval),  # with the memory: up to 7 GB
    ]


def train(agent, env, args):
    """Train, going on from a checkpoint; returns the seconds, None after a resumption."""
    args.run_dir.mkdir(parents=True, exist_ok=True)
    settings = {"seed": args.seed, "memory_limit": args.memory_limit}
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
        callbacks=build_callbacks(args.run_dir, args.checkpoint_interval, resuming=step > 0),
        verbose=args.verbose,
        seed=args.seed + step,  # a resumed run must not play its first episodes again
    )
    agent.save_weights(args.run_dir / "dqn.weights.h5")
    shutil.rmtree(checkpoint, ignore_errors=True)  # finished: the next run starts afresh
    return None if step else round(time.perf_counter() - start, 1)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--nb-steps", type=positive, default=10_000_000, help="default: 10 million")
    add("--memory-limit", type=positive, default=1_000_000, help="frames (default: 1000000, 7 GB)")
    add("--warmup", type=positive, help="steps before learning (default: a 20th of the memory)")
    add("--checkpoint-interval", type=positive, default=250_000, help="steps (default: 250000)")
    add("--test-episodes", type=positive, default=10, help="default: 10")
    add("--run-dir", type=Path, default=RUNS_DIR / "dqn_breakout")
    add("--seed", type=int, default=1, help="default: 1")
    add("--verbose", type=int, choices=(0, 1, 2), default=1, help="default: 1")
    args = parser.parse_args()
    args.warmup = args.warmup or args.memory_limit // 20
    if args.memory_limit < 100:
        parser.error("--memory-limit must be 100 or more")
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
        agent = build_agent(args.seed, args.memory_limit, args.warmup, args.memory_limit)
        agent.model.summary()
        seconds = train(agent, env, args)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last checkpoint.")
    rewards = agent.test(env, args.test_episodes, verbose=0, seed=10_000 + args.seed)
    print(f"Mean score of {len(rewards)} test games: {np.mean(rewards):.1f}")
    plot_logs([args.run_dir / "log.json"], args.run_dir / "rewards.png")
    metrics = {
        "script": "chapter12/dqn_breakout.py",
        "data": ENV_NAME,
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "tensorflow": sys.modules["tensorflow"].__version__,
            "gymnasium": importlib.metadata.version("gymnasium"),
            "ale-py": importlib.metadata.version("ale-py"),
        },
        "device": device,
        "steps": args.nb_steps,
        "episodes": agent.episode,
        "seconds": seconds,
        "parameters": agent.model.count_params(),
        "test": {"mean_reward": float(np.mean(rewards)), "std_reward": float(np.std(rewards))},
    }
    (args.run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"Weights, log, metrics and pictures are in {args.run_dir}")


if __name__ == "__main__":
    main()
