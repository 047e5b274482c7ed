"""Let a trained network play Breakout.

Book: chapter 12, whose repository carries this example.

    python chapter12/dqn_breakout_test.py                        # ten games with the saved weights
    python chapter12/dqn_breakout_test.py --video breakout.gif   # a film, needs no display
    python chapter12/dqn_breakout_test.py --render               # a window, needs a display

It takes the weights of runs/chapter12/dqn_breakout, or those that --weights names; none come with
the repository, since a full training takes a GPU (chapter12/README.md).
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import numpy as np
from dqn_breakout import RUNS_DIR, build_agent, make_env
from dqn_lunar_lander_test import Film


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=RUNS_DIR / "dqn_breakout" / "dqn.weights.h5",
        help="of a trained network",
    )
    parser.add_argument("--episodes", type=int, default=10, help="default: 10")
    parser.add_argument("--max-episode-steps", type=int, help="cut a game off")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--render", action="store_true", help="show a window")
    parser.add_argument("--video", type=Path, metavar="FILE", help="write a .gif or an .mp4")
    args = parser.parse_args()
    if args.episodes < 1:
        parser.error("--episodes must be 1 or more")
    if args.render and args.video:
        parser.error("--render or --video, not both")
    film = Film(every=2, width=160) if args.video else None
    try:
        env = make_env("human" if args.render else "rgb_array" if args.video else None)
        agent = build_agent(args.seed, memory_limit=100)
        agent.load_weights(args.weights)
        rewards = agent.test(
            env,
            args.episodes,
            callbacks=[film] if film else [],
            verbose=2,
            nb_max_episode_steps=args.max_episode_steps,
            seed=args.seed,
        )
        if film:
            film.write(args.video)
            print(f"The film is in {args.video}")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"Mean score {np.mean(rewards):.1f} of {len(rewards)} games")


if __name__ == "__main__":
    main()
