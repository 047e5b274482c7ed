"""Chapter 11: sentence pairs, word pieces, the three networks, decoding, scores, the round trip."""

import io
import json
import math
import sys
import unicodedata
from functools import cache

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, load_script, run_python

SCRIPTS = [f"chapter11/train_{name}_seq2seq.py" for name in ("char", "transformer")]
INFER = "chapter11/infer_char_seq2seq.py"
SAMPLE = ROOT / "data" / "samples" / "fra.txt"
char, transformer = trainers = [load_script(script) for script in SCRIPTS]
infer = load_script(INFER)
every_trainer = pytest.mark.parametrize("module", trainers, ids=["char", "transformer"])
every_network = pytest.mark.parametrize("network", ["char", "attention", "transformer"])


@cache
def untrained(network):
    """Script, sentences, and a network of 12 units that finds some characters more probable."""
    module = transformer if network == "transformer" else char
    data = module.load_data("sample", 300)
    keras.utils.set_random_seed(1)
    sizes = [len(data[name]) + 1 for name in ("input_tokens", "target_tokens")]
    if module is transformer:
        model = module.build_model(sizes[0], dim=12, heads=2)
    else:
        model = module.build_model(12, *sizes, attention=network == "attention")
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    return module, data, model


@every_trainer
def test_no_sentence_of_either_language_is_in_two_parts(module, tmp_path):
    """14 % of the test sentences had a translation that was trained on, when English decided."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 1500, (1000, 2))
    text = "".join(f"english {a}\tfrench {b}\n" for a, b in np.sort(pairs, axis=0))
    (tmp_path / "a.txt").write_text(text)
    pairs = module.load_data(tmp_path / "a.txt")["pairs"]
    for column in ("english", "french"):
        assert pairs[column].duplicated().any()
        assert pairs.groupby("part")[column].nunique().sum() == pairs[column].nunique()
    shares = pairs["part"].value_counts(normalize=True)
    assert 0.7 < shares["train"] < 0.9 and min(shares) > 0.05
    # At random: the real file is sorted by length, so its end is its longest sentences.
    rows = pairs.reset_index().groupby("part")["index"]
    assert rows.min().max() < 200 and rows.max().min() > len(pairs) - 200


@every_trainer
def test_reads_columns_windows_lines_repeats_and_separate_accents_the_same(module, tmp_path):
    expected = module.load_data("sample", 200)
    lines = [line.split("\t")[:2] for line in SAMPLE.read_text("utf-8").splitlines()[:230]]
    text = "".join(f"{a}\t{b}\r\n" for a, b in lines for _ in range(2)) + "\r\n"
    text = unicodedata.normalize("NFD", text)  # an é as e and an accent
    (tmp_path / "mine.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())  # a byte-order mark
    data = module.load_data(tmp_path / "mine.txt", 200)
    pd.testing.assert_frame_equal(data["pairs"], expected["pairs"])
    assert data["target_tokens"] == expected["target_tokens"] and len(data["pairs"]) == 200
    assert "é" in data["target_tokens"] and "\u0301" not in data["target_tokens"]
    if module is not transformer:  # what stands in test sentences alone, it cannot know
        train = data["pairs"][data["pairs"]["part"] == "train"]
        assert data["target_tokens"] == sorted({"\t", "\n", *"".join(train["french"])})


def test_real_pairs(real_data_dir):
    pairs = char.load_data(real_data_dir / "fra.txt")["pairs"]
    assert pairs["part"].value_counts().to_dict() == {"train": 39874, "val": 5175, "test": 4951}


@every_trainer
def test_batches_hold_every_pair_once_shifted_by_one(module):
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


def test_pieces_are_the_most_frequent_pairs_and_give_every_text_back():
    """Sennrich et al.'s example: e and s become one, then es and t, then l and o, lo and w."""
    texts = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    pieces = [*sorted("lowernstid"), "es", "est", "lo", "low"]
    assert transformer.learn_pieces(texts, 14) == pieces
    texts = ["Je n'ai pas mangé.", "Tu n'as pas mangé !", "l'été, l'hiver"] * 3
    pieces = transformer.learn_pieces(texts, 200)
    assert not [piece for piece in pieces if " " in piece[1:]]  # none crosses words
    texts.append("Jehnsav ! tam.")  # of known characters
    ids = transformer.vectorize(texts, pieces).to_list()
    assert ["".join(pieces[i - 1] for i in row) for row in ids] == texts
    assert len(ids[0]) < len(texts[0]) / 2


def test_networks_are_the_books():
    def trainable(model):
        return sum(math.prod(weight.shape) for weight in model.trainable_weights)

    lstm = [4 * 256 * (inputs + 256 + 1) for inputs in (71, 94)]
    assert trainable(char.build_model(256, 71, 94)) == sum(lstm) + 257 * 94
    attentive = char.build_model(256, 71, 94, attention=True)
    assert trainable(attentive) == sum(lstm) + 257 * 94 + 513 * 256
    found = np.asarray(char.one_hot(4, "x")(np.array([[3, 1, 0]])))[0]
    assert found.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]]


@every_network
def test_padding_changes_nothing_and_no_position_sees_what_comes_after_it(network):
    """The state is that after the last real character; attention sees no padding."""
    module, data, model = untrained(network)
    english = module.vectorize(data["pairs"]["english"][::60], data["input_tokens"])
    french = module.vectorize("\t" + data["pairs"]["french"][::60], data["target_tokens"])
    together = np.pad(english.to_tensor(), ((0, 0), (0, 5))), french.to_tensor().numpy()
    together = np.asarray(model(together))
    for i in range(len(together)):
        alone = np.asarray(model([english[i][None], french[i][None]]))[0]
        np.testing.assert_allclose(together[i, : len(alone)], alone, atol=1e-4)
    french = np.random.default_rng(0).integers(1, len(data["target_tokens"]), (1, 9))
    other = french.copy()
    other[:, 5:] = 1
    first, second = (np.asarray(model([np.array([[2, 3, 4]]), x]))[0] for x in (french, other))
    np.testing.assert_allclose(first[:5], second[:5], atol=1e-5)
    assert abs(first[5:] - second[5:]).max() > 1e-3


@every_network
def test_decoding_by_steps_is_the_whole_network_on_what_it_has_written(network, tmp_path):
    """What the whole network, given the text so far, would write next."""
    module, data, model = untrained(network)
    model.save(tmp_path / "model.keras")
    data = infer.create_reverse_indices(dict(data))
    end = data["target_tokens"].index("\n") + 1
    # A character for each piece, and none is a space: the text tells which they were.
    data["reverse_target_token_index"] = {i: chr(20000 + i) for i in range(9999)} | {end: "\n"}
    halves = infer.load_models(tmp_path)[1:]
    sentences = data["pairs"]["english"][::150].tolist()
    translations = infer.translate([*sentences, f" 漢{sentences[0]}字", "漢字"], data, *halves)
    assert translations[-2:] == [translations[0], ""]  # what it does not know is left out
    for sentence, found in zip(sentences, translations, strict=False):
        ids = module.vectorize([sentence], data["input_tokens"]).to_tensor().numpy()
        french = [ord(char) - 20000 for char in found]  # and what it began with
        best = np.asarray(model([ids, np.array([french])]))[0].argmax(axis=-1)
        assert best[:-1].tolist() == french[1:]
        assert best[-1] == end or len(french) == 2 * ids.shape[1] + 50


def test_every_reference_counts():
    references = [["Va !", "Allez !"], ["Il fait froid ce soir."]]
    found = infer.score_translations(["Allez !", "Il fait froid ce soir."], references)
    assert found["exact_match"] == 100 and found["tokenizer"] == "13a"
    assert found["bleu"] == pytest.approx(100) and found["chrf"] == pytest.approx(100)
    worse = infer.score_translations(["Allez !", "Il fait chaud ce soir."], references)
    assert worse["exact_match"] == 50 and worse["bleu"] < 70 and worse["bleu_interval"] > 0
    wrong = infer.score_translations(["zzz", "zzz"], references)  # then sacreBLEU gives no interval
    assert wrong["bleu"] == wrong["bleu_interval"] == 0
    train = pd.DataFrame({"english": ["Go.", "I am here."], "french": ["Va !", "Je suis ici."]})
    assert infer.fit_baseline(train, ["I am not here!"]) == ["Je suis ici."]


@pytest.mark.parametrize("right", ["我今天晚上不想吃饭。", "คืนนี้อากาศหนาวมาก"])
def test_languages_without_spaces_are_counted_by_characters(right):
    """Chinese scored BLEU 0.0 with nine of ten translations right: each was one long word."""
    scores = infer.score_translations([right.replace(right[1], "x")], [[right]])
    assert scores["tokenizer"] == "char" and scores["bleu"] > 50


@pytest.mark.slow
@every_network
def test_round_trip_in_fresh_processes_letter_for_letter(network, tmp_path):
    """One process trains, another translates the test sentences, this one too.

    It scores them by all references, and by looking up the nearest training sentence.
    """
    run_dir = tmp_path / "run"
    script = SCRIPTS[network == "transformer"]
    options = ["--data", "sample", "--num-samples", 60, "--batch-size", 16, "--epochs", 1]
    options += ["--attention"] * (network == "attention")
    result = run_python(script, *options, "--run-dir", run_dir)
    assert result.returncode == 0, result.stdout + result.stderr
    result = run_python(INFER, run_dir, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    table = pd.read_csv(run_dir / "translations.csv", keep_default_na=False)
    assert result.stdout.count("Decoded sentence:") == min(10, len(table))
    data = infer.create_reverse_indices(json.loads((run_dir / "settings.json").read_text()))
    halves = infer.load_models(run_dir)[1:]
    some = table[:3]
    assert infer.translate(some["english"], data, *halves) == some["translation"].tolist()
    pairs = load_script(script).load_data("sample", 60)["pairs"]
    test, train = (pairs[pairs["part"] == part] for part in ("test", "train"))
    assert sorted(table["english"]) == sorted(set(test["english"]))
    assert sum(map(len, map(eval, table["references"]))) == len(test)
    assert set(table["nearest"]) <= set(train["french"])
    scores = json.loads((run_dir / "scores.json").read_text())
    assert scores["test"]["sentences"] == len(table)
    assert scores["baselines"]["nearest_chrf"] > scores["test"]["chrf"]  # it is untrained
    assert "looking up the nearest" in result.stdout and "13a" in result.stdout


def test_sentences_given_and_typed_and_broken_runs(monkeypatch, capsys, tmp_path):
    _, data, model = untrained("char")
    model.save(tmp_path / "model.keras")
    settings = {name: data[name] for name in ("input_tokens", "target_tokens")}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    sentences, printed = data["pairs"]["english"][:2].tolist(), []
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(sentences)))
    for arguments in (sentences, ["-"]):
        monkeypatch.setattr(sys, "argv", [INFER, str(tmp_path), *arguments])
        infer.main()
        printed.append(capsys.readouterr().out.splitlines()[-2:])
    assert printed[0] == printed[1] and printed[0][0]
    for name in ("model.keras", "settings.json"):
        (tmp_path / name).write_text("{}")
        with pytest.raises(SystemExit, match="error: "):
            infer.main()
