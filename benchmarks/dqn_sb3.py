"""Chapter 12: Stable-Baselines3's DQN on CartPole and Lunar Lander, with its tuned settings.

    python benchmarks/dqn_sb3.py CartPole-v1 --seed 1       # 50,000 steps
    python benchmarks/dqn_sb3.py LunarLander-v3 --seed 1    # 300,000 steps

Settings are those of RL Baselines3 Zoo (three times its steps for Lunar Lander). Games, seeds and
steps are those of chapter 12's scripts, and so is the choice of the best network in 20 games now
and then. Writes runs/sb3_<environment>_seed<n>.json.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.modules["tensorflow"] = None  # TensorBoard would load it, and PyTorch crashes beside it

import gymnasium
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

SETTINGS = {
    "CartPole-v1": {
        "learning_rate": 2.3e-3,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 1000,
        "target_update_interval": 10,
        "train_freq": 256,
        "gradient_steps": 128,
        "exploration_fraction": 0.16,
        "exploration_final_eps": 0.04,
    },
    "LunarLander-v3": {
        "learning_rate": 6.3e-4,
        "batch_size": 128,
        "buffer_size": 50_000,
        "learning_starts": 0,
        "target_update_interval": 250,
        "train_freq": 4,
        "gradient_steps": -1,
        "exploration_fraction": 0.12,
        "exploration_final_eps": 0.1,
    },
}
# Those of chapter 12's scripts, for their steps per second.
LIKE_OURS = {
    "CartPole-v1": {
        "policy_kwargs": {"net_arch": [16, 16, 16]},
        "train_freq": 1,
        "tau": 0.01,
        "target_update_interval": 1,
        "buffer_size": 50_000,
    },
    "LunarLander-v3": {
        "policy_kwargs": {"net_arch": [64, 32, 16]},
        "train_freq": 2,
        "tau": 0.005,
        "target_update_interval": 1,
        "buffer_size": 200_000,
        "batch_size": 64,
    },
}


def make_env(name):
    return Monitor(gymnasium.make(name, max_episode_steps=200 if "CartPole" in name else None))


def test(model, env, seed):
    """Mean reward of 100 games without learning."""
    env.reset(seed=seed)
    return evaluate_policy(model, env, n_eval_episodes=100)[0]


def serve(name):
    """Reads a number of steps from each line, trains for so many, prints the seconds."""
    model = DQN("MlpPolicy", make_env(name), learning_starts=100, device="cpu", **LIKE_OURS[name])
    for line in sys.stdin:
        start = time.perf_counter()
        model.learn(int(line), reset_num_timesteps=False)
        print(time.perf_counter() - start, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env", choices=SETTINGS, help="the environment")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--nb-steps", type=int, help="default: 50000, 300000")
    parser.add_argument("--like-ours", action="store_true", help="for bench_dqn.py")
    args = parser.parse_args()
    torch.set_num_threads(1)  # faster, for networks as small as these
    if args.like_ours:
        return serve(args.env)
    short = "CartPole" in args.env
    steps, interval = args.nb_steps or (50_000 if short else 300_000), 2500 if short else 10_000
    run_dir = Path("runs", f"sb3_{args.env}_seed{args.seed}")
    model = DQN(
        "MlpPolicy",
        make_env(args.env),
        seed=args.seed,
        device="cpu",
        policy_kwargs={"net_arch": [256, 256]},
        **SETTINGS[args.env],
    )
    trials = EvalCallback(
        make_env(args.env),
        eval_freq=interval,
        n_eval_episodes=20,
        best_model_save_path=run_dir,
        verbose=0,
    )
    start = time.process_time()
    model.learn(steps, callback=trials)
    metrics = {"env": args.env, "seed": args.seed, "steps": steps}
    metrics["cpu_seconds_with_trials"] = time.process_time() - start
    env, seed = make_env(args.env), args.seed + 10_000
    metrics["last"] = test(model, env, seed)
    metrics["best"] = test(DQN.load(run_dir / "best_model.zip", device="cpu"), env, seed)
    run_dir.with_suffix(".json").write_text(json.dumps(metrics, indent=2))
    print(metrics)


if __name__ == "__main__":
    main()
