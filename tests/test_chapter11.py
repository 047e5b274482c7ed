"""Chapter 11: sentence pairs, word pieces, the three networks, decoding, scores, the round trip."""

import json
import math
import shutil
import subprocess
import sys
import unicodedata
import zlib

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, load_script, run_python
from contract import refuse
from PIL import Image

NAMES = ("char", "attention", "transformer")
TRAINERS = [f"chapter11/train_{name}_seq2seq.py" for name in NAMES]
INFER = "chapter11/infer_char_seq2seq.py"
SAMPLE = ROOT / "data" / "samples" / "fra.txt"
every_trainer = pytest.mark.parametrize("script", TRAINERS, ids=NAMES)


@pytest.fixture(scope="module")
def char():
    return load_script(TRAINERS[0])


@pytest.fixture(scope="module")
def transformer():
    return load_script(TRAINERS[2])


@pytest.fixture(scope="module")
def infer():
    return load_script(INFER)


def small_network(script, data):
    """An untrained network of 12 units whose characters are not about equally probable."""
    import keras

    keras.utils.set_random_seed(1)
    build = load_script(script).build_model
    sizes = [len(data[name]) + 1 for name in ("input_tokens", "target_tokens")]
    model = build(sizes[0], dim=12, heads=2) if "transformer" in script else build(12, *sizes)
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    return model


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """A function: the folder of an untrained network of a script, with its data; made once."""
    runs = {}

    def make(script):
        if script not in runs:
            folder = tmp_path_factory.mktemp("run")
            data = load_script(script).load_data("sample", 300)
            small_network(script, data).save(folder / "model.keras")
            data["pairs"].to_csv(folder / "pairs.csv", index=False)
            settings = {name: data[name] for name in ("input_tokens", "target_tokens")}
            settings["data"] = zlib.crc32(data["pairs"].to_csv().encode())
            (folder / "settings.json").write_text(json.dumps(settings))
            runs[script] = folder, data
        return runs[script]

    return make


def parts_of(pairs, column):
    return {part: set(rows[column]) for part, rows in pairs.groupby("part")}


# Pairs --------------------------------------------------------------------------------------------


@every_trainer
def test_no_sentence_of_either_language_is_in_two_parts(script, tmp_path):
    """14 % of the test sentences had a translation that was trained on, when English decided."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 1500, (1000, 2))
    text = "".join(f"english {a}\tfrench {b}\n" for a, b in np.sort(pairs, axis=0))
    (tmp_path / "a.txt").write_text(text)
    pairs = load_script(script).load_data(tmp_path / "a.txt")["pairs"]
    for column in ("english", "french"):
        assert pairs[column].duplicated().any()
        assert sum(map(len, parts_of(pairs, column).values())) == pairs[column].nunique()
    shares = pairs["part"].value_counts(normalize=True)
    assert 0.7 < shares["train"] < 0.9 and min(shares) > 0.05
    # At random: the real file is sorted by length, so its end is its longest sentences.
    rows = pairs.reset_index().groupby("part")["index"]
    assert rows.min().max() < 200 and rows.max().min() > len(pairs) - 200
    again = load_script(script).load_data(tmp_path / "a.txt")["pairs"]
    pd.testing.assert_frame_equal(pairs, again)


def test_chains_of_shared_sentences_stay_together(char, tmp_path):
    """a-b, b shared with c, c with d: one group, though a and d share nothing."""
    chain = [("a", "1"), ("b", "1"), ("b", "2"), ("c", "2"), ("c", "3"), ("d", "3")]
    others = [(f"e{i}", f"f{i}") for i in range(60)]
    text = "".join(f"{english}\t{french}\n" for english, french in [*others, *chain])
    (tmp_path / "a.txt").write_text(text)
    pairs = char.load_data(tmp_path / "a.txt")["pairs"]
    assert pairs["part"][-6:].nunique() == 1 and pairs["part"].nunique() == 3


@every_trainer
def test_reads_columns_windows_lines_repeats_and_separate_accents_the_same(script, tmp_path):
    expected = load_script(script).load_data("sample", 200)
    lines = [line.split("\t")[:2] for line in SAMPLE.read_text("utf-8").splitlines()[:230]]
    text = "".join(f"{a}\t{b}\r\n" for a, b in lines for _ in range(2)) + "\r\n"
    text = unicodedata.normalize("NFD", text)  # an é as e and an accent
    (tmp_path / "mine.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())  # a byte-order mark
    data = load_script(script).load_data(tmp_path / "mine.txt", 200)
    pd.testing.assert_frame_equal(data["pairs"], expected["pairs"])
    assert data["target_tokens"] == expected["target_tokens"] and len(data["pairs"]) == 200
    assert "é" in data["target_tokens"] and "\u0301" not in data["target_tokens"]


def test_tokens_are_those_of_training(char):
    """What stands in test sentences alone, the network cannot know."""
    data = char.load_data("sample", 300)
    train = data["pairs"][data["pairs"]["part"] == "train"]
    assert set(data["input_tokens"]) == set("".join(train["english"]))
    assert set(data["target_tokens"]) == set("".join(train["french"])) | {"\t", "\n"}
    assert char.vectorize(["a?b"], ["a", "b"]).to_list() == [[1, 2]]


def test_real_pairs(char, real_data_dir):
    pairs = char.load_data(real_data_dir / "fra.txt")["pairs"]
    assert len(pairs) == 50_000 and pairs["english"].str.len().max() == 23
    assert pairs["part"].value_counts().to_dict() == {"train": 39874, "val": 5175, "test": 4951}
    for column in ("english", "french"):
        assert sum(map(len, parts_of(pairs, column).values())) == pairs[column].nunique()


@every_trainer
def test_batches_hold_every_pair_once_shifted_by_one(script):
    module = load_script(script)
    data = module.load_data("sample", 300)
    train = data["pairs"][data["pairs"]["part"] == "train"]
    tokens = {name: ["", *data[name]] for name in ("input_tokens", "target_tokens")}
    seen, batches = [], module.make_batches(data, "train", 16, seed=3)
    for (english, french), target, weights in batches:
        real = weights.numpy() > 0
        assert np.array_equal(real, target.numpy() != 0)
        assert np.unique(weights).tolist() in ([0, real.shape[1]], [real.shape[1]])
        assert real.sum(axis=1).max() == real.shape[1] < real.sum(axis=1).min() + 7
        for e, f, t in zip(english.numpy(), french.numpy(), target.numpy(), strict=True):
            length = np.count_nonzero(t)
            assert np.array_equal(f[1:length], t[: length - 1])
            english_text = "".join(tokens["input_tokens"][i] for i in e)
            french_text = "".join(tokens["target_tokens"][i] for i in [f[0], *t])
            seen.append((english_text, french_text.removeprefix("\t").removesuffix("\n")))
    assert sorted(seen) == sorted(zip(train["english"], train["french"], strict=True))
    assert len(batches) == sum(1 for _ in batches)


# Pieces of words ----------------------------------------------------------------------------------


def test_pieces_are_the_most_frequent_pairs(transformer):
    """Sennrich et al.'s example: e and s become one, then es and t, then l and o, lo and w."""
    texts = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    letters = sorted("lowernstid")
    assert transformer.learn_pieces(texts, 10) == letters
    assert transformer.learn_pieces(texts, 14) == [*letters, "es", "est", "lo", "low"]
    more = transformer.learn_pieces(texts, 1000)  # in the end all words are whole
    assert {"low", "lower", "newest", "widest"} <= set(more) and len(more) == len(set(more))


def test_pieces_do_not_cross_words_and_give_every_text_back(transformer):
    texts = ["Je n'ai pas mangé.", "Tu n'as pas mangé !", "l'été, l'hiver"] * 3
    pieces = transformer.learn_pieces(texts, 200)
    assert not [piece for piece in pieces if " " in piece[1:]]
    ids = transformer.vectorize([*texts, "Jehnsav ! tam."], pieces).to_list()
    assert ["".join(pieces[i - 1] for i in row) for row in ids][:-1] == texts
    assert "".join(pieces[i - 1] for i in ids[-1]) == "Jehnsav ! tam."  # of known characters
    assert len(ids[0]) < len(texts[0]) / 2


# Networks -----------------------------------------------------------------------------------------


def test_networks_are_the_books(char):
    def trainable(model):
        return sum(math.prod(weight.shape) for weight in model.trainable_weights)

    model = char.build_model(256, 71, 94)
    lstm = [4 * 256 * (inputs + 256 + 1) for inputs in (71, 94)]
    assert trainable(model) == sum(lstm) + 257 * 94
    attention = load_script(TRAINERS[1]).build_model(256, 71, 94)
    assert trainable(attention) == trainable(model) + 513 * 256
    found = np.asarray(char.one_hot(4, "x")(np.array([[3, 1, 0]])))[0]
    assert found.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]]


@every_trainer
def test_padding_changes_nothing(script, run_of):
    """The state is that after the last real character; attention sees no padding."""
    import keras

    folder, data = run_of(script)
    model = keras.models.load_model(folder / "model.keras")
    module = load_script(script)
    english = module.vectorize(data["pairs"]["english"][::60], data["input_tokens"])
    french = module.vectorize("\t" + data["pairs"]["french"][::60], data["target_tokens"])
    together = np.pad(english.to_tensor(), ((0, 0), (0, 5))), french.to_tensor().numpy()
    together = model.predict_on_batch(together)
    for i in range(len(together)):
        alone = model.predict_on_batch([english[i][None].numpy(), french[i][None].numpy()])[0]
        np.testing.assert_allclose(together[i, : len(alone)], alone, atol=1e-4)


@every_trainer
def test_no_position_sees_what_comes_after_it(script, run_of):
    import keras

    folder, data = run_of(script)
    model = keras.models.load_model(folder / "model.keras")
    english = np.array([[2, 3, 4]])
    french = np.random.default_rng(0).integers(1, len(data["target_tokens"]), (1, 9))
    other = french.copy()
    other[:, 5:] = 1
    first, second = (model.predict_on_batch([english, x])[0] for x in (french, other))
    np.testing.assert_allclose(first[:5], second[:5], atol=1e-5)
    assert abs(first[5:] - second[5:]).max() > 1e-3


@every_trainer
def test_decoding_by_steps_is_the_whole_network_on_what_it_has_written(script, run_of, infer):
    """In batches or alone: what the whole network, given the text so far, would write next."""
    folder, data = run_of(script)
    data = infer.create_reverse_indices(dict(data))
    end = data["target_tokens"].index("\n") + 1
    # A character for each piece, and none is a space: the text tells which they were.
    data["reverse_target_token_index"] = {i: chr(20000 + i) for i in range(9999)} | {end: "\n"}
    model, *halves = infer.load_models(folder)
    sentences = data["pairs"]["english"][::100].tolist()
    translations = infer.translate([*sentences, "", "漢字"], data, *halves)
    assert translations[-2:] == ["", ""]  # nothing that it knows
    for sentence, found in zip(sentences, translations, strict=False):
        ids = load_script(script).vectorize([sentence], data["input_tokens"]).to_tensor().numpy()
        french = [ord(char) - 20000 for char in found]  # and what it began with
        best = model.predict_on_batch([ids, np.array([french])])[0].argmax(axis=-1)
        assert best[:-1].tolist() == french[1:]
        assert best[-1] == end or len(french) == 2 * ids.shape[1] + 50
    assert infer.translate([f" 漢{sentences[0]}字"], data, *halves) == translations[:1]


def test_attention_weights_are_drawn(run_of, tmp_path):
    import keras

    folder, data = run_of(TRAINERS[1])
    model = keras.models.load_model(folder / "model.keras")
    load_script(TRAINERS[1]).plot_attention(model, data, tmp_path / "attention.png")
    with Image.open(tmp_path / "attention.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_saved_networks_load_in_safe_mode_without_the_scripts(run_of):
    code = "import sys, keras; [keras.models.load_model(x, safe_mode=True) for x in sys.argv[1:]]"
    files = [run_of(script)[0] / "model.keras" for script in TRAINERS]
    result = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_transformer_learns_by_heart(transformer, infer, tmp_path):
    import keras

    keras.utils.set_random_seed(1)
    data = transformer.load_data("sample", 80)
    batches = transformer.make_batches(data, "train", 16, seed=1)
    sizes = {"dim": 64, "blocks": 1, "dropout": 0.0}
    model = transformer.build_model(len(data["input_tokens"]) + 1, 5 * len(batches), **sizes)
    model.fit(batches, epochs=40, verbose=0)
    model.save(tmp_path / "model.keras")
    train = data["pairs"][data["pairs"]["part"] == "train"].drop_duplicates("english", keep=False)
    data = infer.create_reverse_indices(data)
    found = infer.translate(train["english"], data, *infer.load_models(tmp_path)[1:])
    scores = infer.score_translations(found, [[text] for text in train["french"]])
    assert scores["exact_match"] > 80


# Scores -------------------------------------------------------------------------------------------


def test_every_reference_counts(infer):
    references = [["Va !", "Allez !"], ["Il fait froid ce soir."]]
    found = infer.score_translations(["Allez !", "Il fait froid ce soir."], references)
    assert found["exact_match"] == 100 and found["tokenizer"] == "13a"
    assert found["bleu"] == pytest.approx(100) and found["chrf"] == pytest.approx(100)
    worse = infer.score_translations(["Allez !", "Il fait chaud ce soir."], references)
    assert worse["exact_match"] == 50 and worse["bleu"] < 70


@pytest.mark.parametrize("right", ["我今天晚上不想吃饭。", "今夜は寒いですね。", "คืนนี้อากาศหนาวมาก"])
def test_languages_without_spaces_are_counted_by_characters(infer, right):
    """Chinese scored BLEU 0.0 with nine of ten translations right: each was one long word."""
    scores = infer.score_translations([right.replace(right[1], "x")], [[right]])
    assert scores["tokenizer"] == "char" and scores["bleu"] > 50


def test_baseline_looks_up_the_nearest_training_sentence(infer, char):
    pairs = char.load_data("sample", 300)["pairs"]
    train = pairs[pairs["part"] == "train"]
    known = train["english"].iloc[40]
    found = infer.fit_baseline(train, [known, known.replace(".", "!")])
    assert found[0] in set(train["french"][train["english"] == known])


@every_trainer
def test_report_scores_only_test_sentences_with_all_their_references(script, run_of, infer, capsys):
    folder, data = run_of(script)
    settings = infer.create_reverse_indices(json.loads((folder / "settings.json").read_text()))
    infer.report(folder, settings, infer.load_models(folder)[1:])
    table = pd.read_csv(folder / "translations.csv", keep_default_na=False)
    test = data["pairs"][data["pairs"]["part"] == "test"]
    assert sorted(table["english"]) == sorted(set(test["english"]))
    assert sum(map(len, map(eval, table["references"]))) == len(test)
    assert set(table["nearest"]) <= parts_of(data["pairs"], "french")["train"]
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["test"]["sentences"] == len(table)
    assert scores["baselines"]["nearest_chrf"] > scores["test"]["chrf"]  # it is untrained
    printed = capsys.readouterr().out
    assert "looking up the nearest" in printed and "13a" in printed


# From process to process --------------------------------------------------------------------------


@pytest.mark.slow
@every_trainer
def test_round_trip_in_fresh_processes_letter_for_letter(script, infer, tmp_path):
    """One process trains, another translates, this one too: the same letters."""
    run_dir = tmp_path / "run"
    options = ["--data", "sample", "--num-samples", 150, "--batch-size", 16, "--epochs", 2]
    result = run_python(script, *options, "--run-dir", run_dir)
    assert result.returncode == 0, result.stdout + result.stderr
    result = run_python(INFER, run_dir, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    table = pd.read_csv(run_dir / "translations.csv", keep_default_na=False)
    assert result.stdout.count("Decoded sentence:") == min(10, len(table))
    data = infer.create_reverse_indices(json.loads((run_dir / "settings.json").read_text()))
    halves = infer.load_models(run_dir)[1:]
    assert infer.translate(table["english"], data, *halves) == table["translation"].tolist()
    assert table["translation"].str.len().max() > 0


def test_sentences_given_and_typed(run_of):
    folder, data = run_of(TRAINERS[0])
    sentences = data["pairs"]["english"][:2].tolist()
    given = run_python(INFER, folder, *sentences)
    command = [sys.executable, ROOT / INFER, folder, "-"]
    typed = subprocess.run(command, input="\n".join(sentences), capture_output=True, text=True)
    assert given.returncode == typed.returncode == 0, given.stderr + typed.stderr
    assert given.stdout.splitlines()[-2:] == typed.stdout.splitlines()[-2:]


def test_other_pieces_and_runs_that_are_not_whole_are_refused(run_of, tmp_path):
    options = ["--data", "sample", "--num-samples", 300, "--evaluate", "--vocab-size", 50]
    result = run_python(TRAINERS[2], *options, "--run-dir", run_of(TRAINERS[2])[0])
    assert result.returncode == 1 and "trained on other pairs" in result.stderr
    for name, content in (("model.keras", b"PK"), ("settings.json", b'{"seed": 1}')):
        damaged = shutil.copytree(run_of(TRAINERS[0])[0], tmp_path / name)
        (damaged / name).write_bytes(content)
    folders = [tmp_path / name for name in ("model.keras", "settings.json", "nowhere")]
    refuse(INFER, [[folder] for folder in folders], tmp_path)
