"""Train the book's sequence-to-sequence network: English in, French out, one character at a time.

Book: chapter 11, "Machine translation", up to "Training".

    python chapter11/train_char_seq2seq.py                    # the first 50,000 real pairs
    python chapter11/train_char_seq2seq.py --num-samples 10000
    python chapter11/train_char_seq2seq.py --data sample      # small stand-in, needs no network
    python chapter11/train_char_seq2seq.py --data deu.txt     # any pair of manythings.org/anki

One LSTM reads the English sentence; its last state is all that the second LSTM gets to know of it.
That one writes the French sentence, in training with the right answer so far as input (teacher
forcing), afterwards with its own. What to look for: the accuracy per character is high, the BLEU
score of whole translations is not, because in use one early mistake spoils the rest.

What to expect: on the first 50,000 real pairs, 20 epochs, three of four characters right and BLEU
10, half of what looking up the nearest training sentence has (chapter11/README.md).

infer_char_seq2seq.py translates with what this saves.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
import unicodedata
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chapter01/check_gpu.py shows what this hides

import keras
import matplotlib
import numpy as np
import pandas as pd
from keras import layers
from sklearn.feature_extraction.text import TfidfVectorizer

matplotlib.use("Agg")  # pictures go to files: a machine in the cloud has no display
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "runs" / "chapter11"
PARTS = ("train", "val", "test")
PATIENCE = 4  # epochs without a better validation loss before training ends
BEAM_WIDTH = 5
MODEL_FILES = ("char_s2s.keras", "char_s2s_encoder.keras", "char_s2s_decoder.keras")


def load_data(source=None, num_samples=50000, start_char="\t", end_char="\n"):
    """Read sentence pairs and list their characters.

    Args:
        source: None for data/fra-eng/fra.txt (Tatoeba's pairs, manythings.org/anki), "sample" for
            the stand-in in data/samples, or the path of a UTF-8 file with one pair a line:
            English, tab, translation; further columns are ignored.
        num_samples: the first so many different pairs are taken, None for all. The real file is
            sorted by length: its first 50,000 have at most 23 English characters.
        start_char, end_char: put around each translation, so that the decoder has something to
            begin with and a way to stop.

    Returns:
        dict with `input_texts`, `target_texts`: lists of str; `input_chars`, `target_chars`:
        sorted lists of the characters in them; `num_encoder_tokens`, `num_decoder_tokens`,
        `max_encoder_seq_length`, `max_decoder_seq_length`; `train`, `val`, `test`: row numbers;
        `untrained_chars`: input characters that occur in no training sentence.

    Raises:
        OSError: nothing there. ValueError: not in the format above; the message names the line.
    """
    path = DATA_DIR / "fra-eng" / "fra.txt" if source is None else Path(source)
    if source == "sample":
        path = DATA_DIR / "samples" / "fra.txt"
    pairs = read_pairs(path, num_samples)
    input_texts = [english for english, _ in pairs]
    target_texts = [start_char + translation + end_char for _, translation in pairs]
    data = {"input_texts": input_texts, "target_texts": target_texts}
    data |= split_pairs(input_texts, path)
    input_chars, target_chars = (
        sorted(set("".join(input_texts))),
        sorted(set("".join(target_texts))),
    )
    in_training = set("".join(input_texts[row] for row in data["train"]))
    data |= {
        "input_chars": input_chars,
        "target_chars": target_chars,
        "untrained_chars": [char for char in input_chars if char not in in_training],
        "num_encoder_tokens": len(input_chars),
        "num_decoder_tokens": len(target_chars),
        "max_encoder_seq_length": max(map(len, input_texts)),
        "max_decoder_seq_length": max(map(len, target_texts)),
    }
    return data


def read_pairs(path, num_samples=None):
    """The first `num_samples` different (English, translation) pairs of a file."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; `python data/fetch.py fra-eng` brings the real pairs, "
            "`--data sample` works now"
        )
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a text file of tab-separated pairs")
    pairs = {}  # a dict keeps the order and drops repeated pairs
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if len(pairs) == num_samples:
                break
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number} is not UTF-8 (byte {error.start + 1}); save it as UTF-8"
                ) from None
            if not text.strip():
                continue
            # NFC: an é typed on any keyboard is one and the same character.
            columns = [unicodedata.normalize("NFC", column.strip()) for column in text.split("\t")]
            if len(columns) < 2 or not columns[0] or not columns[1]:
                found = "one column" if len(columns) < 2 else "an empty column"
                raise ValueError(
                    f"{path}, line {number} has {found}; expected English, tab, translation"
                )
            pairs[columns[0], columns[1]] = None
    if not pairs:
        raise ValueError(f"{path} is empty; expected lines of English, tab, translation")
    return list(pairs)


def split_pairs(input_texts, path, seed=0):
    """Row numbers of training, validation and test pairs: 80, 10 and 10 % of the sentences.

    All translations of one English sentence go to the same part: with the pairs dealt out one by
    one, many a test sentence would stand in the training set with another translation.
    """
    sentences = sorted(set(input_texts))
    if len(sentences) < 10:
        raise ValueError(
            f"{path} has {len(sentences)} different English sentences; 10 or more are needed"
        )
    order = np.random.default_rng(seed).permutation(len(sentences))
    tenth = len(sentences) // 10
    part_of = dict.fromkeys(sentences, "train")
    part_of |= {sentences[i]: "val" for i in order[:tenth]}
    part_of |= {sentences[i]: "test" for i in order[tenth : 2 * tenth]}
    parts = np.array([part_of[text] for text in input_texts])
    return {part: np.flatnonzero(parts == part) for part in PARTS}


def one_hot_vectorize(data):
    """Add the sentences as character numbers; the network itself makes them one-hot.

    The book's three arrays are one-hot float32, 3.5 GB for 50,000 pairs. Here each character is a
    byte (two where a language has more than 255), and the decoder's input and target are two views
    of one array, a time step apart. Padding has a number of its own, one past the last character.

    Returns:
        the same dict with `input_token_index`, `target_token_index`: {character: number};
        `encoder_input_data`: (pairs, longest English); `decoder_input_data`,
        `decoder_target_data`: (pairs, longest translation - 1).
    """
    data["input_token_index"] = {char: i for i, char in enumerate(data["input_chars"])}
    data["target_token_index"] = {char: i for i, char in enumerate(data["target_chars"])}
    data["encoder_input_data"] = to_ids(data["input_texts"], data["input_token_index"])
    target = to_ids(data["target_texts"], data["target_token_index"])
    data["decoder_input_data"], data["decoder_target_data"] = target[:, :-1], target[:, 1:]
    return data


def to_ids(texts, token_index):
    """Texts to an array of character numbers, as wide as the longest, padded on the right."""
    padding = len(token_index)
    ids = np.full((len(texts), max(map(len, texts))), padding, np.min_scalar_type(padding))
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = [token_index[char] for char in text]
    return ids


def make_batches(data, part, batch_size, seed=None):
    """Batches of one part for `fit` and `evaluate`: ((encoder, decoder input), target, weight).

    Sentences of about the same length go together and each batch is cut to its longest, so that
    little time goes into padding. With a seed the batches are drawn anew for every epoch. Target
    positions that are padding weigh nothing, in loss and accuracy.
    """
    import tensorflow as tf  # Keras's own PyDataset wants all batches of one length

    encoder, decoder = data["encoder_input_data"], data["decoder_input_data"]
    target, padding = data["decoder_target_data"], data["num_decoder_tokens"]
    input_lengths = (encoder != data["num_encoder_tokens"]).sum(axis=1)
    target_lengths = (target != padding).sum(axis=1)
    starts = range(0, len(data[part]), batch_size)
    rng = np.random.default_rng(seed)

    def cut(array, rows, lengths):
        # Multiples of 8: under JAX every new shape is compiled anew.
        return array[rows, : min(-8 * (-lengths[rows].max() // 8), array.shape[1])]

    def batches():
        rows = data[part] if seed is None else rng.permutation(data[part])
        pool = len(rows) if seed is None else 50 * batch_size
        rows = np.concatenate(
            [
                chunk[np.lexsort((input_lengths[chunk], target_lengths[chunk]))]
                for chunk in np.split(rows, range(pool, len(rows), pool))
            ]
        )
        for start in starts if seed is None else rng.permutation(starts):
            chosen = rows[start : start + batch_size]
            answers = cut(target, chosen, target_lengths)
            real = answers != padding
            # Keras averages over a sentence first and over the sentences then: times its length,
            # every character counts alike, whatever its batch was cut to.
            weight = real.astype("float32") * answers.shape[1]
            inputs = cut(encoder, chosen, input_lengths), cut(decoder, chosen, target_lengths)
            yield inputs, np.where(real, answers, 0), weight

    def spec(array):
        return tf.TensorSpec((None, None), array.dtype)

    signature = ((spec(encoder), spec(decoder)), spec(target), tf.TensorSpec((None, None)))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(starts))).prefetch(4)


def one_hot(ids, num_tokens, name):
    """Character numbers to rows of 0 and a single 1; padding becomes a row of zeros."""
    table = layers.Embedding(
        num_tokens + 1, num_tokens, embeddings_initializer="identity", trainable=False, name=name
    )
    return table(ids)


def build_models(lstm_units, num_encoder_tokens, num_decoder_tokens, learning_rate=0.005):
    """The book's three networks, which share their weights; the first is compiled.

    Returns:
        model: (English, French so far) to the next character, for every position at once.
        encoder_model: English to the LSTM's two states.
        decoder_model: (characters, two states) to (probabilities, new states), for translating.
    """
    encoder_input = keras.Input((None,), dtype="int32", name="encoder_input")
    x = one_hot(encoder_input, num_encoder_tokens, "encoder_one_hot")
    x = layers.Masking(name="encoder_mask")(x)  # the state is that after the last real character
    _, state_h, state_c = layers.LSTM(lstm_units, return_state=True, name="encoder_lstm")(x)
    encoder_states = [state_h, state_c]

    decoder_input = keras.Input((None,), dtype="int32", name="decoder_input")
    decoder_chars = one_hot(decoder_input, num_decoder_tokens, "decoder_one_hot")
    decoder_lstm = layers.LSTM(
        lstm_units, return_sequences=True, return_state=True, name="decoder_lstm"
    )
    decoder_dense = layers.Dense(num_decoder_tokens, activation="softmax", name="softmax_output")
    x, _, _ = decoder_lstm(decoder_chars, initial_state=encoder_states)
    model = keras.Model([encoder_input, decoder_input], decoder_dense(x), name="char_s2s")
    compile_model(model, learning_rate)

    encoder_model = keras.Model(encoder_input, encoder_states, name="encoder")
    states_inputs = [keras.Input((lstm_units,), name=f"state_{name}") for name in "hc"]
    x, state_h, state_c = decoder_lstm(decoder_chars, initial_state=states_inputs)
    decoder_model = keras.Model(
        [decoder_input, *states_inputs], [decoder_dense(x), state_h, state_c], name="decoder"
    )
    return model, encoder_model, decoder_model


def compile_model(model, learning_rate):
    """Loss and accuracy per character, padding left out by the weights of `make_batches`."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=learning_rate, clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
        weighted_metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )


def create_callbacks(run_dir, resuming=False):
    """Callbacks that keep the best epoch, end the training, log, and let a killed run go on."""
    best_path, history_path = run_dir / MODEL_FILES[0], run_dir / "history.csv"
    best_so_far = None
    # Without the threshold the first epoch after a restart would replace a better one. A file
    # half-written when the run was killed does not count.
    if resuming and history_path.exists() and zipfile.is_zipfile(best_path):
        best_so_far = pd.read_csv(history_path)["val_loss"].min()
    return [
        keras.callbacks.ModelCheckpoint(
            best_path,
            monitor="val_loss",
            save_best_only=True,
            initial_value_threshold=best_so_far,
        ),
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.4, patience=1),
        keras.callbacks.EarlyStopping("val_loss", patience=PATIENCE, baseline=best_so_far),
        keras.callbacks.CSVLogger(history_path, append=resuming),
        # Last, so that an epoch counts as finished only when everything else is on disk.
        keras.callbacks.BackupAndRestore(run_dir / "backup", double_checkpoint=True),
    ]


def finished_epochs(backup_dir):
    """Number of epochs that the backup of `BackupAndRestore` in `backup_dir` holds; 0 without one.

    A kill while Keras writes that number leaves an empty file. Then the backup of the epoch before,
    which `double_checkpoint` keeps, takes its place.
    """
    for suffix in ("", ".bkp"):
        try:
            text = (backup_dir / f"training_metadata.json{suffix}").read_text()
            epochs = json.loads(text)["epoch"]
        except (OSError, ValueError):
            continue
        if suffix:
            for name in ("latest.weights.h5", "training_metadata.json"):
                shutil.copy(backup_dir / f"{name}.bkp", backup_dir / name)
        return epochs
    return 0


def interrupted_run(run_dir, settings):
    """Whether `run_dir` holds an unfinished training of the same settings; says what it found.

    A backup of other data or another seed is set aside: going on from it would mix two runs.
    """
    settings_path = run_dir / "settings.json"
    epochs = finished_epochs(run_dir / "backup")
    if epochs:
        if settings_path.exists() and json.loads(settings_path.read_text()) == settings:
            print(f"Resuming the interrupted run in {run_dir} after epoch {epochs}.")
            return True
        print(f"{run_dir} holds an interrupted run with other settings; starting afresh.")
    shutil.rmtree(run_dir / "backup", ignore_errors=True)
    for name in MODEL_FILES:  # their character table is about to be replaced
        (run_dir / name).unlink(missing_ok=True)
    settings_path.write_text(json.dumps(settings, indent=2))
    return False


def describe_characters(data):
    """What translating needs to know of the data, in plain numbers and text."""
    keys = ("input_chars", "target_chars", "untrained_chars")
    keys += ("num_encoder_tokens", "num_decoder_tokens")
    return {key: data[key] for key in (*keys, "max_encoder_seq_length", "max_decoder_seq_length")}


def train(models, data, args, settings):
    """Fit, going on from an interrupted run; all three networks of the best epoch are saved.

    Returns:
        (history, seconds): DataFrame with one row per epoch; time spent in `fit`, None when part
        of the training was done before an interruption.
    """
    args.run_dir.mkdir(parents=True, exist_ok=True)
    resuming = interrupted_run(args.run_dir, settings)
    characters = json.dumps(describe_characters(data), ensure_ascii=False, indent=1)
    (args.run_dir / "characters.json").write_text(characters, encoding="utf-8")
    start = time.perf_counter()
    models[0].fit(
        make_batches(data, "train", args.batch_size, args.seed),
        epochs=args.epochs,
        shuffle=False,  # make_batches does it
        validation_data=make_batches(data, "val", args.batch_size),
        callbacks=create_callbacks(args.run_dir, resuming),
    )
    seconds = None if resuming else round(time.perf_counter() - start, 1)
    # The three share their layers, so the best epoch's weights reach them all.
    models[0].load_weights(args.run_dir / MODEL_FILES[0])
    for model, name in zip(models, MODEL_FILES, strict=True):
        model.save(args.run_dir / name)
    # An epoch whose backup was cut off is logged twice.
    history = pd.read_csv(args.run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    return history.reset_index(drop=True), seconds


def fit_baselines(data, sentences):
    """What simpler ways reach: accuracy per character on the test set, a list of translations.

    Bigram: the next character guessed from the one before it, with no look at the English.
    Nearest neighbour: the French of the training sentence with the most similar letter groups.
    """
    rows = data["train"]
    previous, following = data["decoder_input_data"], data["decoder_target_data"]
    padding = data["num_decoder_tokens"]
    counts = np.zeros((padding + 1, padding + 1), dtype=int)
    np.add.at(counts, (previous[rows], following[rows]), 1)
    counts[:, padding] = -1  # padding is no guess
    real = following[data["test"]] != padding
    hits = counts.argmax(axis=1)[previous[data["test"]]] == following[data["test"]]

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), lowercase=False)
    known = vectorizer.fit_transform([data["input_texts"][row] for row in rows])
    asked, nearest = vectorizer.transform(sentences), []
    for start in range(0, len(sentences), 500):
        nearest.extend((asked[start : start + 500] @ known.T).toarray().argmax(axis=1))
    translations = [data["target_texts"][rows[i]].strip("\t\n") for i in nearest]
    return float(hits[real].mean()), translations


def score_translations(translations, references):
    """BLEU, chrF and the share that equals a reference, in per cent; all references count."""
    import sacrebleu

    most = max(map(len, references))
    columns = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    exact = [text in right for text, right in zip(translations, references, strict=True)]
    return {
        "bleu": sacrebleu.corpus_bleu(list(translations), columns).score,
        "chrf": sacrebleu.corpus_chrf(list(translations), columns).score,
        "exact_match": 100 * float(np.mean(exact)),
    }


def test_sentences(data):
    """DataFrame of the different test sentences: `english`, `references` (their translations)."""
    references = {}
    for row in data["test"]:
        text = data["target_texts"][row].strip("\t\n")
        references.setdefault(data["input_texts"][row], []).append(text)
    return pd.DataFrame({"english": references.keys(), "references": references.values()})


def report(models, data, run_dir):
    """Score the best epoch's networks and the baselines, print and save; returns the scores."""
    from infer_char_seq2seq import compile_decoder, create_reverse_indices, translate

    scores = {
        part: models[0].evaluate(make_batches(data, part, 256), verbose=0, return_dict=True)
        for part in PARTS
    }
    test = test_sentences(data)
    print(f"Translating {len(test):,} test sentences …")
    data = create_reverse_indices(data)
    for column, width in (("greedy", 1), ("beam", BEAM_WIDTH)):
        decode = compile_decoder(*models[1:], data, width)
        test[column] = translate(test["english"], data, decode)
    accuracy, test["nearest_neighbour"] = fit_baselines(data, test["english"])

    print("\n      loss per character  accuracy per character")
    for part in PARTS:
        print(f"{part:>5} {scores[part]['loss']:18.4f} {scores[part]['accuracy']:23.4f}")
    print(f" test {accuracy:42.4f}  from the character before alone")
    print(f"\n{len(test):6,} test sentences  BLEU   chrF  exact match")
    rated = {
        column: score_translations(test[column], test["references"])
        for column in ("greedy", "beam", "nearest_neighbour")
    }
    for column, of in rated.items():
        print(
            f"{column.replace('_', ' '):>20} {of['bleu']:7.1f} {of['chrf']:6.1f} "
            f"{of['exact_match']:10.1f} %"
        )
    ahead = rated["greedy"]["bleu"] - rated["nearest_neighbour"]["bleu"]
    print(
        f"BLEU: the network is {abs(ahead):.1f} {'ahead of' if ahead > 0 else 'behind'} looking up"
    )

    test["references"] = test["references"].map(" | ".join)
    test.to_csv(run_dir / "translations.tsv", sep="\t", index=False)
    scores["test"] |= rated["greedy"] | {f"{key}_beam": v for key, v in rated["beam"].items()}
    scores["test"]["sentences"] = len(test)
    scores["baselines"] = {"bigram_accuracy": accuracy}
    for key, value in rated["nearest_neighbour"].items():
        scores["baselines"][f"nearest_neighbour_{key}"] = value
    return scores


def plot_history(history, path):
    """Loss and accuracy per character by epoch, training against validation, as a picture."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4))
    epochs = history["epoch"] + 1
    best = epochs[history["val_loss"].idxmin()]
    for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
        ax.plot(epochs, history[metric], marker=".", label="training")
        ax.plot(epochs, history["val_" + metric], marker=".", label="validation")
        ax.axvline(best, color="grey", linestyle=":", label="best epoch")
        ax.set(xlabel="epoch", ylabel=f"{metric} per character, teacher forcing")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
    axes[0].legend()
    save_figure(fig, path)


def save_figure(fig, path):
    """Write a figure and free it."""
    fig.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(fig)


def parse_arguments(description, name):
    """The command line, for this script and for train_attention_seq2seq.py."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="SOURCE", help='"sample" or a file of pairs')
    parser.add_argument("--epochs", type=positive, default=30, help="at most; default: 30")
    parser.add_argument("--batch-size", type=positive, default=128, help="default: 128")
    parser.add_argument("--run-dir", type=Path, help=f"default: runs/chapter11/{name}")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--evaluate", action="store_true", help="only score the saved networks")
    parser.add_argument(
        "--num-samples", type=positive, default=50000, help="pairs to read (default: 50000)"
    )
    args = parser.parse_args()
    if args.run_dir is None:  # a first try on the sample must not replace a model of the real set
        args.run_dir = RUNS_DIR / (name + ("_sample" if args.data == "sample" else ""))
    return args


def positive(text):
    """A whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def load_trained(run_dir, data, name):
    """The three saved networks, for --evaluate.

    Raises:
        OSError, ValueError: none there, of another script, or trained on other data.
    """
    from infer_char_seq2seq import load_characters, load_models

    models = load_models(run_dir)
    if models[0].name != name:
        raise ValueError(f"{run_dir} holds {models[0].name}, not {name}; give another --run-dir")
    if describe_characters(load_characters(run_dir)) != describe_characters(data):
        raise ValueError(
            f"{run_dir} was trained on other pairs; give the --data and --num-samples of then"
        )
    return models


def run(args, build, script):
    """Train or load what `build` makes and score it; returns (models, data)."""
    keras.utils.set_random_seed(args.seed)
    backend = keras.backend.backend()
    device = keras.distribution.list_devices()[0]
    if device.startswith("cpu"):
        device += f" ({os.cpu_count()} cores)"
    print(f"Keras {keras.__version__} on {backend}, device: {device}")

    try:
        data = one_hot_vectorize(load_data(args.data, args.num_samples))
        models = build(256, data["num_encoder_tokens"], data["num_decoder_tokens"])
        if args.evaluate:
            models = load_trained(args.run_dir, data, models[0].name)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = "English-French pairs of Tatoeba" if args.data is None else Path(args.data).name
    if args.data == "sample":
        source = "sample (a stand-in, sentences from a small grammar)"
    source += f", {len(data['input_texts']):,} pairs"
    print(f"Data: {source}: {', '.join(f'{len(data[part]):,} {part}' for part in PARTS)}")
    print(f"Number of unique input tokens: {data['num_encoder_tokens']}")
    print(f"Number of unique output tokens: {data['num_decoder_tokens']}")
    print(f"Max sequence length for inputs: {data['max_encoder_seq_length']}")
    print(f"Max sequence length for outputs: {data['max_decoder_seq_length']}")
    metrics_path = args.run_dir / "metrics.json"
    if args.evaluate:
        scores = report(models, data, args.run_dir)
        if metrics_path.exists():  # the scores are renewed, what is said of the training stays
            scores = json.loads(metrics_path.read_text()) | scores
            metrics_path.write_text(json.dumps(scores, indent=2) + "\n")
        return models, data

    models[0].summary()
    settings = {
        "script": script,
        "data": str(Path(args.data).resolve()) if args.data not in (None, "sample") else args.data,
        "num_samples": args.num_samples,
        "seed": args.seed,
        "batch_size": args.batch_size,
    }
    try:
        history, seconds = train(models, data, args, settings)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command goes on from the last finished epoch.")
    plot_history(history, args.run_dir / "learning_curves.png")
    best_epoch = int(history["epoch"][history["val_loss"].idxmin()]) + 1
    print(f"\nThe best of {len(history)} epochs was number {best_epoch}:")
    metrics = {
        "script": script,
        "data": source,
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": backend,
            backend: sys.modules[backend].__version__,
            "sacrebleu": importlib.metadata.version("sacrebleu"),
        },
        "device": device,
        "epochs": len(history),
        "best_epoch": best_epoch,
        "seconds": seconds,
        "parameters": sum(int(np.prod(w.shape)) for w in models[0].trainable_weights),
        **report(models, data, args.run_dir),
    }
    metrics_path.write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"The networks, metrics, translations and curves are in {args.run_dir}")
    return models, data


def main():
    args = parse_arguments(__doc__, "char_seq2seq")
    run(args, build_models, "chapter11/train_char_seq2seq.py")


if __name__ == "__main__":
    main()
