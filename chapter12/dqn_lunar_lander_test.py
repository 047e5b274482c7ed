"""Watch a trained network land on the moon.

Book: chapter 12, "Lunar Lander", Results.

    python chapter12/dqn_lunar_lander_test.py                          # ten landings, as figures
    python chapter12/dqn_lunar_lander_test.py --video landing.gif      # a film, needs no display
    python chapter12/dqn_lunar_lander_test.py --render                 # a window, needs a display
    python chapter12/dqn_lunar_lander_test.py --weights FILE           # weights of your own

The weights that come with the repository are those of dqn_lunar_lander.py; chapter12/README.md says
of which run. 200 points and more are a good landing.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import numpy as np
from dqn_lunar_lander import build_agent, make_env
from PIL import Image
from rl.callbacks import Callback

WEIGHTS = Path(__file__).resolve().parent / "weights" / "dqn_lunar_lander.weights.h5"


class Film(Callback):
    """Collects a picture of every `every`-th step."""

    def __init__(self, every, width):
        self.every, self.width, self.frames = every, width, []

    def on_step_end(self, step, logs):
        if step % self.every == 0:
            frame = Image.fromarray(self.env.render())
            self.frames.append(frame.resize((self.width, self.width * frame.height // frame.width)))

    def write(self, path):
        """Write an animated GIF, or with a video library an MP4.

        Raises:
            OSError: it cannot be written; the message says what is missing.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".gif":
            frames = [frame.quantize(32) for frame in self.frames]  # few colours: a small file
            frames[0].save(
                path, save_all=True, append_images=frames[1:], duration=20 * self.every, loop=0
            )
            return
        try:
            import imageio.v3 as imageio

            imageio.imwrite(path, [np.asarray(f) for f in self.frames], fps=50 // self.every)
        except (ImportError, OSError, ValueError) as error:
            raise OSError(
                f"{path} cannot be written ({error}); a name ending in .gif needs nothing else, "
                'an .mp4 needs: pip install "imageio[ffmpeg]"'
            ) from error


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="default: those shipped")
    parser.add_argument("--episodes", type=int, default=10, help="default: 10")
    parser.add_argument("--seed", type=int, default=1, help="of the moons (default: 1)")
    parser.add_argument("--render", action="store_true", help="show a window")
    parser.add_argument("--video", type=Path, metavar="FILE", help="write a .gif or an .mp4")
    args = parser.parse_args()
    if args.episodes < 1:
        parser.error("--episodes must be 1 or more")
    if args.render and args.video:
        parser.error("--render or --video, not both")
    return args


def main():
    args = parse_arguments()
    film = Film(every=3, width=300) if args.video else None
    try:
        env = make_env("human" if args.render else "rgb_array" if args.video else None)
        agent = build_agent(args.seed)
        agent.load_weights(args.weights)
        rewards = agent.test(
            env, args.episodes, callbacks=[film] if film else [], verbose=2, seed=args.seed
        )
        if film:
            film.write(args.video)
            print(f"The film is in {args.video}")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    landed = sum(reward >= 200 for reward in rewards)
    print(f"Mean reward {np.mean(rewards):.1f}; {landed} of {len(rewards)} reached 200")


if __name__ == "__main__":
    main()
