"""Run every script on its sample under other Keras backends, and write docs/backends.md.

    python tests/backends.py jax                     # which run, which refuse: about 10 minutes
    python tests/backends.py tensorflow jax --write  # both, and the page
    python tests/backends.py jax --only chapter09

The commands below are short (one epoch or a few steps): they show that a script runs, not that it
learns. They run in a copy of the repository's files, chapter by chapter, two chapters at a time.
Where a backend refuses to train, the scripts that follow find what TensorFlow has trained, if it
was named first.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "backends.md"
TIMEOUT = 900  # seconds
NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}

# In order: what a script needs, the ones before it have made.
COMMANDS = """\
chapter01/check_gpu.py
chapter01/xor_from_scratch.py
chapter01/optimizers.py
chapter01/holdout_and_kfold.py --epochs 2
chapter02/data_prep.py --data sample --output data/wine_split
chapter02/mlp_wine.py --data sample --epochs 2
chapter02/dnn_wine.py --data sample --epochs 2
chapter02/predict.py data/samples/winequality-white.csv --run-dir runs/mlp_wine_sample
chapter02/known_wines.py --data sample --run-dirs runs/mlp_wine_sample runs/dnn_wine_sample
chapter03/mlp_wine_tensorboard.py --data sample --epochs 2
chapter03/dnn_wine_tensorboard.py --data sample --epochs 2
chapter03/dnn_wine_broken.py --data sample --epochs 2
chapter03/find_copies.py runs/dnn_wine_broken_sample
chapter04/data_prep.py --data sample
chapter04/dnn_eeg.py --data sample --epochs 2
chapter04/predict.py data/samples/eeg.csv --run-dir runs/dnn_eeg_sample
chapter05/mlp_mnist.py --data sample --epochs 1
chapter05/mlp_mnist_dropout.py --data sample --epochs 1
chapter05/mlp_mnist_l2.py --data sample --epochs 1
chapter05/compare_runs.py runs/mlp_mnist_sample runs/mlp_mnist_dropout_sample
chapter05/softmax.py
chapter06/random_search_mnist.py --data sample --n-iter 2 --cv 2
chapter06/hyperband_mnist.py --data sample --train-images 500 --max-iter 3
chapter06/hyperband_mnist.py --data sample --train-images 500 --max-iter 3 --random-search 3 \
--run-dir runs/r
chapter06/hyperband_keras_tuner.py --data sample --train-images 500 --max-iter 3
chapter06/compare_searches.py runs/hyperband_mnist_sample runs/r runs/hyperband_keras_tuner_sample
chapter07/cnn_cifar10.py --data sample --epochs 1
chapter07/cnn_cifar10_augmented.py --data sample --epochs 1
chapter07/cnn_cifar10_augmented.py --data sample --network better --epochs 1
chapter07/conv_by_hand.py --model runs/cnn_cifar10_sample/model.keras
chapter07/cnn_cifar10_hosts.py --coordinator 127.0.0.1:9876 --num-hosts 1 --host-index 0 \
--data sample --epochs 1
chapter07/photos_to_npz.py --help
chapter08/data_setup.py --data sample --output data/sorted
chapter08/inceptionv3_dogs_cats.py --data sample --backbone mobilenet --weights none --epochs 2 \
--unfreeze-after 1 --run-dir runs/cats
chapter08/how_much_data.py runs/cats --folds 2
chapter08/classify_photo.py data/sorted/val/cat/cat.9.jpg --run-dir runs/cats
chapter08/grad_cam.py data/sorted/val/cat/cat.9.jpg --run-dir runs/cats
chapter09/rnn_from_scratch.py
chapter09/lstm_bitcoin.py --data sample --epochs 1
chapter09/predict_and_graph.py --data sample --run-dir runs/lstm_bitcoin_sample
chapter09/baselines.py --data sample --run-dirs runs/lstm_bitcoin_sample
chapter09/lstm_bitcoin_stateful.py --data sample --epochs 1
chapter10/vectorize_text.py --data sample
chapter10/word2vec_imdb.py --data sample --epochs 1
chapter10/word_vectors.py --data sample
chapter10/average_texts.py newsgroups --data sample --epochs 1
chapter10/cnn_newsgroups.py --data sample --epochs 1
chapter10/cnn_newsgroups_glove.py --data sample --vectors sample --epochs 1
chapter10/lstm_newsgroups.py --data sample --epochs 1
chapter10/lstm_imdb.py --data sample --epochs 1
chapter11/train_char_seq2seq.py --data sample --epochs 1
chapter11/infer_char_seq2seq.py runs/train_char_seq2seq_sample
chapter11/train_char_seq2seq.py --data sample --epochs 1 --attention --run-dir runs/attention
chapter11/train_transformer_seq2seq.py --data sample --epochs 1
chapter11/infer_char_seq2seq.py runs/train_transformer_seq2seq_sample
chapter12/q_learning_table.py --episodes 200
chapter12/dqn_cartpole.py --nb-steps 1200
chapter12/visualize_log.py runs/dqn_cartpole/log.json
chapter12/dqn_lunar_lander.py --nb-steps 1200
chapter12/dqn_lunar_lander_test.py --episodes 1
chapter12/dqn_breakout.py --nb-steps 300 --memory-limit 300
chapter13/gan_mnist.py --data sample --epochs 1
chapter13/gan_cifar10.py --data sample --epochs 1
chapter13/gan_mnist_conditional.py --data sample --epochs 1
chapter13/generate.py --run-dir runs/gan_mnist_sample
chapter13/evaluate_gan.py --data sample --run-dir runs/gan_mnist_sample --classifier-epochs 1
chapter13/how_gans_fail.py --steps 20
"""

NOTE = """\
Chapter 12's agents learn by Keras's own calls on JAX, and in one compiled TensorFlow function
otherwise; chapter 13's GANs train by the same `fit` on both."""


def chapter_of(command):
    return command.split("/")[0]


def run(command, folder, backend):
    """(seconds, "" or the last line of what went wrong) of one command."""
    script, *options = command.split()
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    start = time.perf_counter()
    try:
        result = subprocess.run(
            [sys.executable, script, *options],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return TIMEOUT, f"not done after {TIMEOUT} seconds"
    (folder / "logs").mkdir(exist_ok=True)
    log = folder / "logs" / f"{backend}-{script.replace('/', '-')}.log"
    log.write_text(f"{command}\n{result.stdout}\n{result.stderr}")
    words = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
    return time.perf_counter() - start, words[-1] if result.returncode else ""


def copy_repository(folder):
    """The files git knows, without what runs and downloads have left."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


def run_all(commands, backend, folder):
    """{command: (seconds, message)}; a message that is not empty is a failure."""
    copy_repository(folder / backend)

    def run_chapter(group):
        results = {}
        for command in group:
            results[command] = seconds, message = run(command, folder / backend, backend)
            print(f"{backend:10} {seconds:5.0f} s  {command}  {message}", flush=True)
            trained = folder / "tensorflow" / "runs" / chapter_of(command)
            if message and backend != "tensorflow" and trained.exists():
                # What cannot be trained here may still be used here.
                target = folder / backend / "runs" / chapter_of(command)
                shutil.copytree(trained, target, dirs_exist_ok=True)
        return results

    chapters = [list(group) for _, group in groupby(commands, key=chapter_of)]
    chapters.sort(key=len, reverse=True)
    with ThreadPoolExecutor(2) as pool:
        done = [result for part in pool.map(run_chapter, chapters) for result in part.items()]
    return {command: dict(done)[command] for command in commands}


def write_page(results):
    """docs/backends.md, from the runs of this call."""
    versions = {backend: f"{NAMES[backend]} {version(backend)}" for backend in results}
    lines = [
        "# Backends: which scripts run where",
        "",
        "Written by `python tests/backends.py tensorflow jax --write`. Each command ran in a copy "
        f"of the repository, on the samples, on a CPU, with Keras {version('keras')} on "
        + " and ".join(versions[backend] for backend in results)
        + ". The commands are short: they show that a script runs, not what it learns. To try one: "
        "`make cluster`, then `KERAS_BACKEND=jax` before the command.",
        "",
        "| command | " + " | ".join(map(versions.get, results)) + " |",
        "|---|" + "---|" * len(results),
    ]
    reasons = {}
    for command in next(iter(results.values())):
        cells = []
        for backend in results:
            message = results[backend][command][1]
            if message:
                number = reasons.setdefault(message.removeprefix("error: "), len(reasons) + 1)
                verb = "refuses" if message.startswith("error: ") else "fails"
                cells.append(f"{verb} ({number})")
            else:
                cells.append("runs")
        lines.append(f"| `{command}` | " + " | ".join(cells) + " |")
    lines += ["", "What those that refuse say:", ""]
    lines += [f"{number}. {reason}" for reason, number in reasons.items()]
    lines += ["", NOTE]
    PAGE.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("backends", nargs="+", choices=NAMES)
    parser.add_argument("--only", default="", help="commands that begin so, such as chapter09")
    parser.add_argument("--keep", type=Path, help="folder for the copies, runs and logs")
    parser.add_argument("--write", action="store_true", help="write docs/backends.md")
    args = parser.parse_args()
    commands = [line for line in COMMANDS.splitlines() if line.startswith(args.only)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        results = {backend: run_all(commands, backend, folder) for backend in args.backends}
    for backend, rows in results.items():
        failed = sum(bool(message) for _, message in rows.values())
        print(f"{backend}: {len(rows) - failed} of {len(rows)} run")
    if args.write:
        write_page(results)


if __name__ == "__main__":
    main()
