"""RESULTS.md: the book's figures beside ours, made from the metrics.json files of the runs quoted.

    python tests/check_results.py            # fails when a figure in a table is in no such file
    python tests/check_results.py --write    # writes RESULTS.md anew

Each chapter's `results/` holds the metrics.json of its runs. A row below names its files and the
keys of its figures; several files are seeds, shown as mean ± standard deviation.
"""

import json
import re
import sys
from collections import defaultdict
from operator import itemgetter
from pathlib import Path
from statistics import fmean, stdev

ROOT = Path(__file__).resolve().parent.parent
MEASURED = "test.accuracy"
LOGISTIC = "baselines.logistic_regression_accuracy"
TFIDF = "baselines.tfidf_accuracy"


def seeds(name, *numbers):
    """The files of seeds 1 to 3, or of these."""
    return [f"{name}_seed{number}" for number in numbers or (1, 2, 3)]


DRAWS = ("1_evaluation", "2_evaluation", "3_evaluation")
PHOTOS = [name for split in (1, 2, 3) for name in seeds(f"mobilenet_split{split}")]
PHOTOS_320 = [name for split in (1, 2, 3) for name in seeds(f"mobilenet_320_split{split}")]

# chapter, example, the book, metrics.json files, (what, key, decimals), (baseline, key, decimals),
# options of the command
ROWS = [
    (1, "XOR, two layers written out", "needs two layers", ["xor_from_scratch"],
     ("rows right", "train.accuracy", 2),
     ("one neuron", "baselines.logistic_neuron.accuracy", 2), ""),
    (1, "hold-out and K-fold on breast cancer", "described", seeds("holdout_and_kfold", 0, 1, 2),
     ("test accuracy", MEASURED, 3),
     ("logistic regression", "baselines.logistic_regression.accuracy", 3), ""),
    (2, "wine, one hidden layer", "test MAE 0.200", seeds("mlp_wine"), ("test MAE", "test.mae", 3),
     ("linear regression", "baselines.linear_regression_mae", 3), ""),
    (2, "the same, five hidden layers", "test MAE 0.190", seeds("dnn_wine"),
     ("test MAE", "test.mae", 3),
     ("gradient boosting", "baselines.gradient_boosting_mae", 3), ""),
    (2, "each wine once, one hidden layer", "–", seeds("mlp_wine_once"),
     ("test MAE", "test.mae", 3),
     ("linear regression", "baselines.linear_regression_mae", 3), "--drop-duplicates"),
    (2, "the same, five hidden layers", "–", seeds("dnn_wine_once"),
     ("test MAE", "test.mae", 3),
     ("gradient boosting", "baselines.gradient_boosting_mae", 3), "--drop-duplicates"),
    (3, "wine, one hidden layer, in TensorBoard", "curves", seeds("mlp_wine_tensorboard"),
     ("test MAE", "test.mae", 3), ("always the median", "baselines.median_mae", 3), ""),
    (3, "the same, five hidden layers", "curves", seeds("dnn_wine_tensorboard"),
     ("test MAE", "test.mae", 3), ("always the median", "baselines.median_mae", 3),
     "--epochs 60"),
    (3, "a network that does not learn", "stuck", seeds("dnn_wine_broken"),
     ("test MAE", "test.mae", 3), ("always the median", "baselines.median_mae", 3),
     "--epochs 60"),
    (3, "the author's own broken network: kernels 0, biases 1", "stuck",
     seeds("dnn_wine_broken_author"), ("test MAE", "test.mae", 3),
     ("always the median", "baselines.median_mae", 3), "--start 0 1 --epochs 60"),
    (4, "EEG, seizure or not", "best validation accuracy 0.985", seeds("dnn_eeg"),
     ("best validation accuracy", "best_val_accuracy", 3), None, ""),
    (4, "the same", "–", seeds("dnn_eeg"), ("test ROC AUC", "test.roc_auc", 3),
     ("extra trees", "extra_trees.roc_auc", 3), ""),
    (4, "the same, whole recordings held out", "–", seeds("dnn_eeg_grouped"),
     ("test ROC AUC", "test.roc_auc", 3), ("extra trees", "extra_trees.roc_auc", 3),
     "--group-by-recording"),
    (5, "MNIST, three hidden layers", "test accuracy 0.9806", seeds("mlp_mnist"),
     ("test accuracy", MEASURED, 4), ("logistic regression", LOGISTIC, 4), ""),
    (5, "the same with dropout", "marginally better", seeds("mlp_mnist_dropout"),
     ("test accuracy", MEASURED, 4), ("logistic regression", LOGISTIC, 4), ""),
    (5, "the same with dropout 0.2", "–", seeds("mlp_mnist_dropout_0.2"),
     ("test accuracy", MEASURED, 4), ("logistic regression", LOGISTIC, 4), "--dropout 0.2"),
    (5, "the same with dropout 0.3, larger batches", "–", seeds("mlp_mnist_dropout_0.3_batch256"),
     ("test accuracy", MEASURED, 4), ("logistic regression", LOGISTIC, 4),
     "--dropout 0.3 --batch-size 256"),
    (5, "no dropout, larger batches", "–", seeds("mlp_mnist_batch256"),
     ("test accuracy", MEASURED, 4), ("logistic regression", LOGISTIC, 4), "--batch-size 256"),
    (5, "the same with an L2 penalty of 0.01", "no better", seeds("mlp_mnist_l2"),
     ("test accuracy", MEASURED, 4), ("logistic regression", LOGISTIC, 4), ""),
    (5, "the same with 0.00001", "–", seeds("mlp_mnist_l2_1e-05"),
     ("test accuracy", MEASURED, 4), ("logistic regression", LOGISTIC, 4), "--l2 1e-05"),
    (5, "the same with AdamW, weight decay 0.01", "–", seeds("mlp_mnist_adamw"),
     ("test accuracy", MEASURED, 4), ("logistic regression", LOGISTIC, 4),
     "--weight-decay 0.01"),
    (6, "MNIST, random search, 30 fits", "8.8 minutes on a K80", seeds("random_search_mnist"),
     ("test accuracy", MEASURED, 3), ("logistic regression", LOGISTIC, 4), ""),
    (6, "MNIST, Hyperband, 1,000 digits", "no figure", seeds("hyperband"),
     ("validation loss of the winner", "best.loss", 3),
     ("logistic regression, test accuracy", LOGISTIC, 3),
     "--train-images 1000 --max-iter 27"),
    (6, "random search beside it", "–", seeds("random_search"),
     ("validation loss of the winner", "best.loss", 3),
     ("logistic regression, test accuracy", LOGISTIC, 3),
     "--train-images 1000 --max-iter 27 --random-search 14"),
    (7, "CIFAR-10 (JPEG copies of the images), the book's CNN", "curves",
     seeds("cnn_cifar10"), ("test accuracy", MEASURED, 3),
     ("linear model", "baselines.linear_model_accuracy", 3), ""),
    (7, "the same on changed images", "higher", seeds("cnn_cifar10_augmented"),
     ("test accuracy", MEASURED, 3), ("linear model", "baselines.linear_model_accuracy", 3), ""),
    (7, "a better network than the book's", "–",
     seeds("cnn_cifar10_better"), ("test accuracy", MEASURED, 3),
     ("linear model", "baselines.linear_model_accuracy", 3), "--network better"),
    (8, "dogs and cats, 2,000 of 25,000 photographs, MobileNet (alpha 0.25)",
     "validation accuracy 0.983", PHOTOS,
     ("validation accuracy", "val.accuracy", 3), None, "--backbone mobilenet"),
    (8, "the same", "–", PHOTOS, ("test accuracy", MEASURED, 3),
     ("colour histograms", "colour_histograms.accuracy", 3), "--backbone mobilenet"),
    (8, "the same, images of 320 x 320", "–", PHOTOS_320, ("test accuracy", MEASURED, 3),
     ("colour histograms", "colour_histograms.accuracy", 3),
     "--backbone mobilenet --image-size 320"),
    (9, "bitcoin by the minute, two LSTM layers (Bitfinex)", "RMSE 0.080, scaled otherwise",
     seeds("lstm_bitcoin"), ("test RMSE, dollars", "test.rmse", 3),
     ("last value", "baselines.last_value_rmse", 3), "--epochs 10"),
    (9, "the same, changes in standard deviations", "–", seeds("lstm_bitcoin_std"),
     ("test RMSE, dollars", "test.rmse", 3), ("last value", "baselines.last_value_rmse", 3),
     "--scale std --epochs 6"),
    (9, "the same in streams, a forecast each minute", "–", seeds("each_minute_std"),
     ("test RMSE, dollars", "test.rmse", 3), ("last value", "baselines.last_value_rmse", 3),
     "--scale std --epochs 10"),
    (9, "with volume and range as further inputs", "–", seeds("lstm_bitcoin_more"),
     ("test RMSE, dollars", "test.rmse", 3), ("last value", "baselines.last_value_rmse", 3),
     "--scale std --inputs volume range --epochs 6"),
    (9, "stateful, batches in the book's order", "–", seeds("book_order"),
     ("test RMSE, dollars", "test.rmse", 3), ("last value", "baselines.last_value_rmse", 3),
     "--book-order --epochs 10"),
    (10, "20 newsgroups, averaged word vectors", "described", seeds("average_newsgroups"),
     ("test accuracy", MEASURED, 3), ("TF-IDF + logistic regression", TFIDF, 3), "newsgroups"),
    (10, "the same, without quotes and signatures", "–", seeds("average_newsgroups_stripped"),
     ("test accuracy", MEASURED, 3), ("TF-IDF + logistic regression", TFIDF, 3),
     "newsgroups --strip-quotes"),
    (10, "20 newsgroups, CNN, vectors learned from the posts", "curves", seeds("cnn_newsgroups"),
     ("test accuracy", MEASURED, 3), ("TF-IDF + logistic regression", TFIDF, 3), ""),
    (10, "the same on GloVe's vectors (50 dimensions, 40,000 words), frozen", "curves",
     seeds("cnn_newsgroups_glove"), ("test accuracy", MEASURED, 3),
     ("TF-IDF + logistic regression", TFIDF, 3), "--vectors glove.6B.50d.txt"),
    (10, "20 newsgroups, CNN on GloVe's vectors, trained further", "not helpful",
     seeds("cnn_newsgroups_glove_tuned"), ("test accuracy", MEASURED, 3),
     ("TF-IDF + logistic regression", TFIDF, 3),
     "--vectors glove.6B.50d.txt --fine-tune --dropout 0.5 --batch-size 32 --epochs 30"),
    (10, "20 newsgroups, an LSTM, its outputs averaged", "an exercise",
     seeds("lstm_newsgroups"), ("test accuracy", MEASURED, 3),
     ("TF-IDF + logistic regression", TFIDF, 3), ""),
    (10, "IMDB, averaged vectors of words and pairs", "described", seeds("average_imdb"),
     ("test accuracy", MEASURED, 3), ("TF-IDF of the same", TFIDF, 3),
     "imdb --data aclImdb/ --ngrams 2 --vocab-size 200000"),
    (10, "IMDB (as text files), LSTM", "validation accuracy 0.86", seeds("lstm_imdb"),
     ("test accuracy", MEASURED, 3), ("TF-IDF + logistic regression", TFIDF, 3),
     "--data aclImdb/"),
    (11, "English to French, by characters", "some right", seeds("char_seq2seq"),
     ("BLEU", "test.bleu", 1), ("nearest sentence", "baselines.nearest_bleu", 1), ""),
    (11, "English to French, by characters with attention", "described",
     seeds("attention_seq2seq", 1, 2), ("BLEU", "test.bleu", 1),
     ("nearest sentence", "baselines.nearest_bleu", 1), "--attention"),
    (11, "English to French, a transformer on pieces of words", "an exercise",
     seeds("transformer_seq2seq", 1), ("BLEU", "test.bleu", 1),
     ("nearest sentence", "baselines.nearest_bleu", 1), ""),
    (12, "CartPole, 200 steps", "about 200", seeds("dqn_cartpole", 1, 2, 3, 4, 5),
     ("mean reward", "test.mean_reward", 1),
     ("one-line rule", "baselines.push_where_it_falls_mean_reward", 1), ""),
    (12, "Lunar Lander, 300,000 steps", "–",
     seeds("dqn_lunar_lander", 1, 2, 3, 4, 5), ("mean reward", "test.mean_reward", 0),
     ("hand-written pilot", "baselines.hand_written_pilot_mean_reward", 0), ""),
    (12, "the same with a wider network, 256-256", "–",
     seeds("dqn_lunar_lander_wide", 1, 2, 3, 4, 5), ("mean reward", "test.mean_reward", 0),
     ("hand-written pilot", "baselines.hand_written_pilot_mean_reward", 0), "--units 256 256"),
    (12, "the book's network, gone on with to a million",
     "lands most of the time", seeds("dqn_lunar_lander_million"),
     ("mean reward", "test.mean_reward", 0),
     ("hand-written pilot", "baselines.hand_written_pilot_mean_reward", 0), "--nb-steps 1000000"),
    (13, "MNIST, generated digits, how sure a classifier is of them", "the eye",
     seeds("gan_mnist", *DRAWS), ("mean top probability", "last.mean_top_probability", 3),
     ("real images", "real.mean_top_probability", 3), ""),
    (13, "the same", "the eye", seeds("gan_mnist", *DRAWS),
     ("Fréchet distance", "last.frechet", 1), ("real against real", "frechet_floor", 1), ""),
    (13, "with an averaged generator", "–", seeds("gan_mnist_ema", *DRAWS),
     ("Fréchet distance", "last.frechet", 1), ("real against real", "frechet_floor", 1),
     "--ema 0.999"),
    (13, "with spectral normalization", "–", seeds("gan_mnist_spectral", "1_evaluation"),
     ("Fréchet distance", "last.frechet", 1), ("real against real", "frechet_floor", 1),
     "--spectral-norm"),
    (13, "digits to order", "named as a next step",
     seeds("gan_mnist_conditional", "1_evaluation", "2_evaluation"),
     ("Fréchet distance", "last.frechet", 1), ("real against real", "frechet_floor", 1), ""),
    (13, "CIFAR-10 (JPEG copies)", "birds, fish, at very low resolution",
     seeds("gan_cifar10", "1_evaluation"), ("Fréchet distance", "last.frechet", 1),
     ("real against real", "frechet_floor", 1), ""),
]  # fmt: skip

HEAD = """# Results

The book's figures beside ours: the same data where it could be had, the test set used once, each
figure from a `metrics.json` (chapter 13: `evaluation.json`) in the chapter's `results/` folder
(`python tests/check_results.py` compares them). Several seeds are mean ± standard deviation;
fewer than three where three take more than an hour of a CPU core.

All runs: CPU, one or two cores; Python 3.11, Keras 3.15, TensorFlow 2.21. Chapter 13's GANs, but
for the one that takes orders, were trained on a GPU, with JAX; the last table has more of that.
Where a result falls short of the book or of its baseline, the second table says why. The commands
read the real data that `python data/fetch.py` brings. `--seed` is the script's own (1; in chapter 1
it is 0), then 2, 3 and so on; GloVe's vectors are those of its 40,000 most frequent words; runs of
one script with other options or seeds each need a `--run-dir` of their own. BLEU is what
infer_char_seq2seq.py says of a run afterwards, a Fréchet distance what evaluate_gan.py does. "–" in
the baseline column means that the row before or after, or the chapter's README, has it.

| Chapter | Example | The book | Here | Simple baseline | Epochs | Runs | Command |
|---|---|---|--:|--:|--:|---|---|
"""

MIDDLE = """

## Where the book or a baseline is ahead

| Chapter | What | Whose | Theirs | Here | Why |
|---|---|---|--:|--:|---|
"""


GPU_HEAD = """

## On a GPU

One NVIDIA H200, `KERAS_BACKEND=jax` (JAX 0.11.2, Keras 3.15), seed 1, the same commands and data.
Other trainings, up to eleven, shared the card and its 16 CPU cores, so the minutes, from the
command's start to its end, are upper bounds. "On a CPU" is the table above.

| Chapter | Example | Here | On a CPU | Minutes | Command |
|---|---|--:|--:|--:|---|
"""

# chapter, example, metrics.json, those on a CPU, (what, key, decimals), options of the command
GPU = [
    (2, "wine, one hidden layer", "mlp_wine_h200", seeds("mlp_wine"), ("test MAE", "test.mae", 3),
     ""),
    (2, "five hidden layers", "dnn_wine_h200", seeds("dnn_wine"), ("test MAE", "test.mae", 3), ""),
    (5, "MNIST, three hidden layers", "mlp_mnist_h200", seeds("mlp_mnist"),
     ("test accuracy", MEASURED, 4), ""),
    (7, "CIFAR-10 (JPEG copies), the book's CNN", "cnn_cifar10_h200", seeds("cnn_cifar10"),
     ("test accuracy", MEASURED, 3), ""),
    (7, "the same images, a better network", "cnn_cifar10_better_h200", seeds("cnn_cifar10_better"),
     ("test accuracy", MEASURED, 3), "--network better"),
    (8, "dogs and cats, MobileNet (alpha 0.25)", "mobilenet_h200", PHOTOS,
     ("test accuracy", MEASURED, 3), "--backbone mobilenet"),
    (13, "MNIST, a GAN", "gan_mnist_seed1_evaluation", None,
     ("Fréchet distance", "last.frechet", 1), ""),
    (13, "the same, averaged", "gan_mnist_ema_seed1_evaluation", None,
     ("Fréchet distance", "last.frechet", 1), "--ema 0.999"),
    (13, "CIFAR-10 (JPEG copies), a GAN, 12 epochs", "gan_cifar10_seed1_evaluation", None,
     ("Fréchet distance", "last.frechet", 1), ""),
]  # fmt: skip


def load(chapter, name):
    """The metrics.json `name` of a chapter."""
    folder = ROOT / f"chapter{chapter:02}" / "results"
    metrics = json.loads((folder / f"{name}.json").read_text())
    if "moments" in metrics:  # of evaluate_gan.py: the figures of the training's end, and its run
        run = json.loads((folder / f"{name.removesuffix('_evaluation')}.json").read_text())
        metrics = {**run, **metrics, "last": metrics["moments"][-1]}
    return metrics


def look_up(metrics, key):
    """The figure under a key with dots."""
    for part in key.split("."):
        metrics = metrics[part]
    return metrics


def show(runs, key, decimals):
    """A figure of several runs: mean, and ± standard deviation where there are several."""
    values = [look_up(run, key) for run in runs]
    mean = f"{fmean(values):.{decimals}f}"
    deviation = f"{stdev(values) if len(values) > 1 else 0:.{decimals}f}"
    return f"{mean} ± {deviation}" if float(deviation) else mean


def make_row(chapter, example, book, names, measured, baseline, options):
    """One line of the table."""
    runs = [load(chapter, name) for name in names]
    what, key, decimals = measured
    simple = "–"
    if baseline:
        simple = f"{baseline[0]} {show(runs, *baseline[1:])}"
    epochs = sorted({run.get("epochs", "–") for run in runs}, key=str)
    links = ", ".join(
        f"[{i}](chapter{chapter:02}/results/{n}.json)" for i, n in enumerate(names, 1)
    )
    script = runs[0]["script"]
    script = script if "/" in script else f"chapter{chapter:02}/{script}.py"
    command = f"python {script} {options}".strip()
    cells = [
        f"[{chapter}](chapter{chapter:02}/)",
        example,
        book,
        f"{what} {show(runs, key, decimals)}",
        simple,
        " / ".join(map(str, epochs)),
        links,
        f"`{command}`",
    ]
    return "| " + " | ".join(cells) + " |"


# Where the book or the baseline is ahead: chapter, what, the book's or the baseline's figure,
# files, key, decimals, why
SHORT = [
    (4, "best validation accuracy", "book", 0.985, seeds("dnn_eeg"), "best_val_accuracy", 3,
     "no difference that could be told: one of the three seeds is above it"),
    (8, "validation accuracy", "book", 0.983, PHOTOS, "val.accuracy", 3,
     "the smallest pretrained network instead of InceptionV3, 2,000 photographs instead of 25,000"),
    (2, "five hidden layers against gradient boosting, test MAE", "baseline",
     "baselines.gradient_boosting_mae", seeds("dnn_wine"), "test.mae", 3,
     "they know the test wines that are also in training almost by heart; on new wines 0.198 "
     "against 0.211, on each wine once no difference that could be told (the chapter's README)"),
    (4, "against extra trees, test ROC AUC", "baseline", "extra_trees.roc_auc",
     seeds("dnn_eeg"), "test.roc_auc", 3,
     "trees do well on a table of numbers"),
    (1, "hold-out, a network against logistic regression, test accuracy", "baseline",
     "baselines.logistic_regression.accuracy", seeds("holdout_and_kfold", 0, 1, 2), MEASURED, 3,
     "no difference that could be told: 57 test rows, of which one is 0.018"),
    (2, "one hidden layer against gradient boosting, test MAE", "baseline",
     (seeds("dnn_wine"), "baselines.gradient_boosting_mae"), seeds("mlp_wine"), "test.mae", 3,
     "as with five; with each wine once 0.214 ± 0.002 against 0.215"),
    (5, "dropout against none, which the book calls marginally better, test accuracy", "no dropout",
     (seeds("mlp_mnist"), MEASURED), seeds("mlp_mnist_dropout"), MEASURED, 4,
     "no difference that could be told; what dropout changes is the loss (the chapter's README)"),
    (6, "Hyperband against random search at one budget, validation loss", "random search",
     (seeds("random_search"), "best.loss"), seeds("hyperband"), "best.loss", 3,
     "no difference that could be told"),
    (9, "two LSTM layers on the book's scale against ARIMA, RMSE", "baseline", 3.668,
     seeds("lstm_bitcoin"), "test.rmse", 3,
     "no difference that could be told: between 0.2 % ahead and 1.6 % behind (95 % interval)"),
    (9, "stateful in the book's order against the last value, RMSE", "baseline",
     "baselines.last_value_rmse", seeds("book_order"), "test.rmse", 3,
     "the state that is carried on is that of another minute (docs/differences.md)"),
    (10, "20 newsgroups, the book's CNN against TF-IDF", "baseline", TFIDF,
     seeds("cnn_newsgroups"), MEASURED, 3,
     "ten epochs without dropout; averages of learned vectors have 0.876"),
    (10, "the same on GloVe's vectors, frozen", "baseline", TFIDF, seeds("cnn_newsgroups_glove"),
     MEASURED, 3, "the same, and words without a vector are zeros"),
    (10, "20 newsgroups, CNN on GloVe's vectors against TF-IDF", "baseline", TFIDF,
     seeds("cnn_newsgroups_glove_tuned"), MEASURED, 3,
     "another ± 0.009 from 2,000 test posts; averages of learned vectors have 0.876"),
    (10, "20 newsgroups, an LSTM against TF-IDF", "baseline", TFIDF,
     seeds("lstm_newsgroups"), MEASURED, 3,
     "another ± 0.009 from 2,000 test posts; averages of learned vectors have 0.876"),
    (10, "IMDB, averaged vectors against TF-IDF of the same", "baseline", TFIDF,
     seeds("average_imdb"), MEASURED, 3, "no difference that could be told (the chapter's README)"),
    (10, "IMDB, LSTM against TF-IDF", "baseline", TFIDF, seeds("lstm_imdb"), MEASURED, 3,
     "ten units and the last 400 words; another ± 0.002 from 25,000 test reviews"),
    (11, "by characters against looking up the nearest sentence, BLEU", "baseline",
     "baselines.nearest_bleu", seeds("char_seq2seq"), "test.bleu", 1,
     "another ± 0.6 against ± 0.9 (95 % over the test sentences); 20 epochs of the book's 100, "
     "its loss still falling; the whole sentence in two states of 256 numbers"),
    (11, "by characters with attention against looking up the nearest sentence, BLEU",
     "baseline", "baselines.nearest_bleu", seeds("attention_seq2seq", 1, 2), "test.bleu", 1,
     "another ± 0.9 each: no difference that could be told, seed 1 is behind, seed 2 ahead; a "
     "transformer on pieces of words, trained for 41 minutes instead of 29, has 37.8 (one seed)"),
    (12, "Lunar Lander, 300,000 steps, against a hand-written pilot", "baseline",
     "baselines.hand_written_pilot_mean_reward", seeds("dqn_lunar_lander", 1, 2, 3, 4, 5),
     "test.mean_reward", 0, "two of the five seeds hover; a wider network has 253 ± 8"),
]  # fmt: skip


def make_shortfall(chapter, what, whose, figure, names, key, decimals, why):
    """One line of the second table."""
    runs = [load(chapter, name) for name in names]
    theirs = f"{figure:.{decimals}f}" if isinstance(figure, float) else ""
    if isinstance(figure, str | tuple):  # a key of the same runs, or other runs and their key
        others, figure = figure if isinstance(figure, tuple) else (names, figure)
        theirs = show([load(chapter, name) for name in others], figure, decimals)
    cells = [f"[{chapter}](chapter{chapter:02}/)", what, whose, theirs]
    return "| " + " | ".join([*cells, show(runs, key, decimals), why]) + " |"


def make_gpu_row(chapter, example, name, cpu, measured, options):
    """One line of the third table."""
    run, (what, key, decimals) = load(chapter, name), measured
    cells = [f"[{chapter}](chapter{chapter:02}/)", example]
    cells += [f"{what} {show([run], key, decimals)}"]
    cells += [show([load(chapter, other) for other in cpu], key, decimals) if cpu else "–"]
    cells += [f"{run['minutes_beside_others']:.1f}"]
    script = f"python chapter{chapter:02}/{run['script']}.py {options}".strip()
    return "| " + " | ".join([*cells, f"`{script}`"]) + " |"


def make_page():
    """RESULTS.md as it should be."""
    return (
        HEAD
        + "\n".join(make_row(*row) for row in ROWS)
        + MIDDLE
        + "\n".join(make_shortfall(*row) for row in sorted(SHORT, key=itemgetter(0)))
        + GPU_HEAD
        + "\n".join(make_gpu_row(*row) for row in GPU)
        + "\n"
    )


def figures(chapter):
    """All figures of a chapter's runs, and mean and deviation of each key over their seeds."""
    by_key = defaultdict(list)

    def walk(value, key):
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, (*key, name))
        elif isinstance(value, list):
            for inner in value:
                walk(inner, key)
        elif isinstance(value, int | float):
            by_key[key].append(value)

    for path in sorted((ROOT / f"chapter{chapter:02}" / "results").glob("*.json")):
        metrics = json.loads(path.read_text())
        # "mlp_seed1" and "mlp_seed2" are runs of one thing, and so are splits.
        group = re.sub(r"_?(seed|split)_?\d+", "", path.stem) or metrics.get("script")
        walk(metrics, (group,))
    found = []
    for values in by_key.values():
        found += [*values, fmean(values)] + ([stdev(values)] if len(values) > 1 else [])
    return found


def unknown_figures(text, chapter):
    """Figures with three or more decimals in `text` that no run of the chapter has."""
    known = figures(chapter)
    return [
        shown
        for shown in re.findall(r"\d\.\d{3,}", text)
        if not any(f"{value:.{len(shown) - 2}f}" == shown for value in known)
    ]


def check():
    """What is wrong, as a list of messages."""
    problems = []
    if not (ROOT / "RESULTS.md").exists() or (ROOT / "RESULTS.md").read_text() != make_page():
        problems.append(
            "RESULTS.md is not what the runs give; python tests/check_results.py --write"
        )
    chapter = None
    for line in (ROOT / "README.md").read_text().splitlines():
        cells = line.split(" | ")
        chapter = None if line.startswith("#") else chapter
        if not line.startswith("|") or len(cells) < 5:
            continue
        if match := re.match(r"\| \[(\d+)\]\(chapter", line):
            chapter = int(match[1])
        if chapter:
            for shown in unknown_figures(" ".join(cells[3:]), chapter):
                problems.append(
                    f"README.md: {shown} is in no run of chapter {chapter}: {line[:60]}"
                )
    return problems


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        (ROOT / "RESULTS.md").write_text(make_page())
    problems = check()
    print("\n".join(problems) or "RESULTS.md and README.md agree with the runs.")
    sys.exit(bool(problems))
