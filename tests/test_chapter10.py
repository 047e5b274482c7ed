"""Chapter 10: vectors of texts and words, the networks, averages, how texts are read."""

import json
import sys
import tarfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import ROOT, load_script
from contract import REVIEWS, make_texts, write_tar
from sklearn.preprocessing import normalize

NAMES = "cnn_newsgroups cnn_newsgroups_glove lstm_newsgroups lstm_imdb average_texts"
NAMES += " vectorize_text word_vectors word2vec_imdb"
scripts = [load_script(f"chapter10/{name}.py") for name in NAMES.split()]
cnn, glove, lstm, imdb, average, vectorize, words, word2vec = scripts
TEXTS = np.array(["good film", "bad film", "", "no word known", "good " * 150] * 4, dtype=object)


@pytest.fixture
def run_main(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments):
        """What `main()` of a script prints."""
        monkeypatch.setattr(sys, "argv", [script.__file__, *map(str, arguments)])
        script.main()
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (vectorize, ["--data", "."], "train/{neg,pos}"),
        (words, ["--data", "sample", "--words", "cat", "qqq"], "no vectors for qqq"),
        (word2vec, ["--data", "sample", "--output", "here.txt"], "here.txt exists"),
        (average, ["newsgroups", "--data", "sample", "--run-dir", "."], "holds files"),
        (average, ["imdb"], "needs the TensorFlow backend"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(script, arguments, message, run_main, monkeypatch):
    if "backend" in message:
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    Path("here.txt").touch()
    with pytest.raises(SystemExit, match=rf"\Aerror: .*{message}.*\Z"):
        run_main(script, *arguments)


def test_reviews_have_no_quotes_to_strip(run_main, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_main(average, "imdb", "--data", "sample", "--strip-quotes")
    assert "for newsgroups" in capsys.readouterr().err


def test_the_books_two_tables():
    counts = vectorize.count_vectorize(vectorize.DOCUMENTS)
    assert list(counts) == ["bed", "cat", "dog", "face", "my", "on", "sat", "the"]
    assert counts.to_numpy().tolist() == [[0, 1, 0, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 1, 1, 1]]
    expected = [[0, 0.116, 0, 0.116, 0, 0, 0, 0], [0.116, 0, 0.116, 0, 0, 0, 0, 0]]
    assert vectorize.tf_idf(counts).round(3).to_numpy().tolist() == expected
    # An empty document gets zeros, not a division by zero.
    assert not vectorize.tf_idf(vectorize.count_vectorize(["the cat", ""])).iloc[1].any()
    assert [vectorize.stem(word) for word in ("cat", "cats", "cat's", "cats'")] == ["cat"] * 4
    assert vectorize.stem_tokenize("Running <b>films</b>, don't") == ["run", "film", "don't"]
    assert vectorize.content_tokenize("the film was not good") == ["film", "good"]


def test_ways_of_vectorizing_are_compared(run_main):
    output = run_main(vectorize, "--data", "sample")
    rows = [line.rsplit(maxsplit=2) for line in output.splitlines()[-9:]]
    accuracy = {name.strip(): float(value) for name, _, value in rows}
    assert len(accuracy) == 9 and min(accuracy.values()) > 0.6
    assert accuracy["TF-IDF, words and pairs"] > accuracy["TF-IDF"]
    # Hashed into many columns bare counts stay what they are.
    assert accuracy["counts hashed into 262,144"] == pytest.approx(accuracy["counts"], abs=0.02)


def test_cats_are_more_like_dogs_than_lizards_and_man_is_to_king(run_main):
    output = run_main(words, "--data", "sample", "--analogy", "cat", "dog", "lizard")
    assert "cat is to dog as lizard is to:" in output and Path("runs/word_vectors.png").exists()
    line = next(line for line in output.splitlines() if line.startswith("cat "))
    _, itself, dog, lizard = line.split()
    assert float(itself) == 1 and float(dog) > float(lizard) + 0.2
    male, female, royal = np.eye(3)
    vectors = {"man": male, "woman": female, "king": male + royal, "queen": female + royal}
    vectors |= {"stone": -royal, "nothing": 0 * royal}
    units = pd.DataFrame(normalize(list(vectors.values())), index=list(vectors))
    assert words.find_analogy(units, "man", "king", "woman", top=1).index.tolist() == ["queen"]


def test_files_of_word_vectors_as_others_write_them(tmp_path):
    path, expected = tmp_path / "vectors.txt", {"cat": [0.1, -2], ". . .": [5, 6]}
    for text in (
        "cat\t0.1\t-2\r\n. . .\t5\t6",  # tabs; spaces in a word; no end of the last line
        "2 2\ncat 0.1 -2 \n. . . 5 6 \n",  # word2vec: a header, spaces at the ends
    ):
        path.write_bytes(text.encode())
        found = glove.load_word_vectors(path)
        assert list(found) == list(expected)
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-6)
    for line in ("turkey 1", "turkey abc 1", ""):  # cut off, damaged, empty
        path.write_text(f"cat 0.1 -2\n{line}\ndog 1 2\n")
        with pytest.raises(ValueError, match="line 2:"):
            glove.load_word_vectors(path)


def test_rows_of_the_matrix_belong_to_the_words():
    index = {"cat": np.array([1, 2], "float32"), "dog": np.array([3, 5], "float32")}
    vocabulary = ["", "[UNK]", "the", "dog", "cat"]
    matrix = glove.embedding_index_to_matrix(index, vocabulary)
    assert matrix.tolist() == [[0, 0], [0, 0], [0, 0], [3, 5], [1, 2]]
    filled = glove.embedding_index_to_matrix(index, vocabulary, fill=True)
    assert np.array_equal(filled[[0, 3, 4]], matrix[[0, 3, 4]])
    assert filled[1:3].all() and len({*filled[1:3].flat}) == 4  # told apart


def test_skip_gram_pairs_stay_near_and_in_their_review():
    tokens, documents, pairs = np.arange(10), np.repeat([0, 1], 5), set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        centres, contexts = word2vec.skip_gram_pairs(tokens, documents, 2, rng)
        assert (abs(centres - contexts) == 1).sum() == 16  # a window is never smaller than 1
        pairs |= set(zip(centres.tolist(), contexts.tolist(), strict=True))
    near = [(i, i + distance) for i in range(10) for distance in (-2, -1, 1, 2)]
    assert pairs == {(i, j) for i, j in near if i // 5 == j // 5}
    # Frequent words are thinned out, and negatives follow the counts.
    counts, tokens = np.array([90_000, 9_900, 100]), np.tile(np.arange(3), 20_000)
    expected = np.sqrt(1e-4 / np.array([0.9, 0.099, 0.001]))
    np.testing.assert_allclose(word2vec.keep_probability(counts), expected)
    data = {"tokens": tokens, "documents": 0 * tokens, "counts": counts}
    inputs, _ = next(word2vec.generate_batches(data, 5000, np.random.default_rng(1)))
    share = np.bincount(inputs["candidates"][:, 1:].ravel()) / 25_000
    np.testing.assert_allclose(share, counts**0.75 / (counts**0.75).sum(), atol=0.02)


@pytest.mark.slow
def test_word2vec_learns_and_the_others_read_its_file(run_main):
    """Two subjects whose words never meet in a review: afterwards each finds its own."""
    rng, files = np.random.default_rng(0), {}
    for kind in ("train/pos", "train/neg", "test/pos", "test/neg"):
        for number in range(100 if "train" in kind else 10):
            text = " ".join(f"{kind[-3:]}{i}" for i in rng.integers(0, 10, 200))
            files[f"x/{kind}/{number}.txt"] = text.encode()
    archive, output = write_tar(Path("reviews.tar.gz"), files), Path("new/vectors.txt")
    run_main(word2vec, "--data", archive, "--epochs", 8, "--batch-size", 64, "--output", output)
    vectors = glove.load_word_vectors(output)
    units = {word: vector / np.linalg.norm(vector) for word, vector in vectors.items()}
    for word, unit in units.items():
        nearest = sorted(units, key=lambda other: units[other] @ unit)[-8:]
        assert {other[:3] for other in nearest} == {word[:3]}


@pytest.mark.parametrize(("script", "name"), [(imdb, "aclImdb"), (cnn, "20_newsgroup")])
def test_archives_and_folders_give_the_same(script, name, tmp_path):
    folder = tmp_path / name
    with tarfile.open(ROOT / "data" / "samples" / f"{name}.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    text = next(path for path in folder.rglob("[!.]*") if path.is_file())
    (text.parent / "._hidden.txt").write_bytes(b"\0")
    packed, unpacked = script.load_data("sample"), script.load_data(folder)
    assert all(np.array_equal(packed[name], unpacked[name]) for name in {*packed, *unpacked})
    assert not [text for text in packed["train_X"] if "Newsgroups:" in text]


def test_one_policy_for_encodings_and_for_archives(tmp_path):
    file = tmp_path / "1"
    for content in ("naïve".encode(), "naïve".encode("latin-1"), b"\xef\xbb\xbfna\xc3\xafve"):
        file.write_bytes(content)
        assert cnn.read_text(file) == "naïve"
    file.write_text("naïve", encoding="utf-16")
    with pytest.raises(ValueError, match="1 is no text, or UTF-16"):
        cnn.read_text(file)
    with pytest.raises(tarfile.TarError):
        cnn.load_data(write_tar(tmp_path / "x.tar", {"top/../../../evil": b"x"}))


def test_reviews_are_utf8_or_refused(tmp_path):
    texts = {name: "Très bien ".encode() for name in make_texts(REVIEWS)}
    assert imdb.load_data(write_tar(tmp_path / "x.tar", texts))["test_X"][0] == "Très bien "
    texts = {name: "a fine film".encode("utf-16-le") for name in texts}
    with pytest.raises(ValueError, match="in UTF-8"):
        imdb.load_data(write_tar(tmp_path / "zeros.tar", texts))


def test_keras_word_numbers_become_words(monkeypatch):
    part = np.array([[1, 4, 5, 2], [1, 5]], dtype=object), np.array([0, 1])
    monkeypatch.setattr(keras.datasets.imdb, "get_word_index", lambda: {"the": 1, "film": 2})
    texts, y = imdb.turn_into_words(part)
    assert texts.tolist() == ["the film", "film"] and y.tolist() == [0, 1]


def test_headers_quotes_and_signatures_are_cut_off_and_copies_counted():
    post = "From: a@b.c\nNewsgroups: sci.med\nSubject: x\n\nFirst line: y\n\nSecond part.\n"
    assert cnn.HEADER.sub("", post) == "First line: y\n\nSecond part.\n"
    folded = "Nntp-Posting-Host: x\nReferences: <1>\n <2>\n\t<3>\nNewsgroups: sci.med\n\nText"
    assert cnn.HEADER.sub("", folded) == "Text"
    for text in ("Note: mind this\n\nand that", "Plain text\n\nFrom: nobody", "", "Re: \n\nyes"):
        assert cnn.HEADER.sub("", text) == text
    post = "In article <1> a@b writes:\n> yours\nMine.\n\nMore of mine.\n\n--\nA. Name, Inc.\n"
    assert average.strip_quotes(post) == "Mine.\n\nMore of mine."
    assert average.strip_quotes("One paragraph.\n") == "One paragraph."
    data = {"train_X": ["a", "b", "c", "c"], "train_y": [0, 0, 0, 1]}
    data |= {"test_X": ["a", "b", "c", "d"], "test_y": [0, 1, 1, 0]}
    assert average.count_copies(data) == {"all": 3, "of_other_classes": 1}


def test_networks_are_the_books():
    model = cnn.build_model(TEXTS)
    counts = {layer.name: layer.count_params() for layer in model.layers if layer.weights}
    convolutions = [5 * size * 128 + 128 for size in (100, 128, 128)]
    assert [*counts.values()] == [2_000_000, *convolutions, 128 * 128 + 128, 128 * 20 + 20]
    for fine_tune in (False, True):
        model = glove.build_model(TEXTS, {"good": np.ones(1000)}, 20, fine_tune, dropout=0.5)
        assert [layer.name for layer in model.layers if layer.weights] == list(counts)
        assert model.get_layer("embedding").trainable == fine_tune
        rates = [model.get_layer(name).rate for name in ("embedding_dropout", "dropout")]
        assert rates == [0.25, 0.5] and len(model.to_json()) < 20_000  # no matrix
    model = imdb.build_network(TEXTS, steps=10)
    assert model.count_params() == 2_000_000 + 4 * (100 + 10 + 1) * 10 + 10 + 1  # 4 gates
    assert model.get_layer("lstm1").recurrent_dropout == 0.2


def test_neither_padding_nor_emptiness_changes_an_answer():
    """Alone and among long texts the same; and of a text without a word no NaN."""
    networks = [
        cnn.build_model(TEXTS, 2, vocab_size=30),
        imdb.build_network(TEXTS, steps=10, vocab_size=30),
        lstm.build_model(TEXTS, 2, vocab_size=30),
        average.build_network(TEXTS, 2, ngrams=2, vocab_size=30),
    ]
    rng = np.random.default_rng(0)
    for model in networks:
        for weight in model.trainable_weights:  # signals from padding, too
            fan_in = 1 if "embedding" in weight.path else np.prod(weight.shape[:-1])
            weight.assign(rng.normal(size=weight.shape) / np.sqrt(fan_in))
        together = np.asarray(model(tf.constant(TEXTS[:5].tolist())))
        alone = np.concatenate([model(tf.constant([text])) for text in TEXTS[:4]])
        np.testing.assert_allclose(together[:4], alone, atol=1e-5)
        assert np.isfinite(together).all() and np.ptp(together[:, 0]) > 1e-4
    assert {"good", "good film"} <= {*model.get_layer("vectorizer").get_vocabulary()}


def test_batches_hold_every_text_once_and_texts_of_like_length():
    texts = np.array(["x" * n for n in range(0, 4000, 10)], dtype=object)
    batches = cnn.batch_by_length(texts, np.arange(400), 16, seed=1)
    rows = [y.numpy().tolist() for _, y in batches]
    assert len(batches) == len(rows) and sorted(sum(rows, [])) == list(range(400))
    assert max(max(batch) - min(batch) for batch in rows) <= 100  # of 1,000 characters


@pytest.mark.slow
def test_average_learns_the_sample(run_main):
    run_main(average, "newsgroups", "--data", "sample", "--ngrams", 2, "--vocab-size", 3000)
    metrics = json.loads(Path("runs/average_newsgroups_sample/metrics.json").read_text())
    accuracy, baseline = metrics["test"]["accuracy"], metrics["baselines"]["tfidf_accuracy"]
    assert accuracy > 0.4 and 0 < metrics["lead"]["error"] < 0.1
    assert metrics["lead"]["mean"] == pytest.approx(accuracy - baseline, abs=1e-6)
