"""Chapter 10: vectors of texts and words, the networks, averages, how texts are read."""

import json
import math
import tarfile

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, load_script
from contract import write_tar
from sklearn.feature_extraction.text import TfidfVectorizer

CNN, GLOVE, LSTM, IMDB, AVERAGE, VECTORIZE, WORDS, WORD2VEC = (
    f"chapter10/{name}.py"
    for name in (
        *("cnn_newsgroups", "cnn_newsgroups_glove", "lstm_newsgroups", "lstm_imdb"),
        *("average_texts", "vectorize_text", "word_vectors", "word2vec_imdb"),
    )
)
SAMPLES = ROOT / "data" / "samples"
REVIEWS, POSTS = SAMPLES / "aclImdb.tar.gz", SAMPLES / "20_newsgroup.tar.gz"
VECTORS = SAMPLES / "glove.sample.50d.txt"
PARTS = ("train", "val", "test")
TEXTS = np.array(["good film", "bad film", "", "no word known", "good " * 300] * 4, dtype=object)


@pytest.fixture(scope="module")
def cnn():
    return load_script(CNN)


@pytest.fixture(scope="module")
def glove():
    return load_script(GLOVE)


@pytest.fixture(scope="module")
def imdb():
    return load_script(IMDB)


@pytest.fixture(scope="module")
def average():
    return load_script(AVERAGE)


# Vectors of texts ---------------------------------------------------------------------------------


def test_the_books_two_tables():
    script = load_script(VECTORIZE)
    counts = script.count_vectorize(script.DOCUMENTS)
    assert list(counts) == ["bed", "cat", "dog", "face", "my", "on", "sat", "the"]
    assert counts.to_numpy().tolist() == [[0, 1, 0, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 1, 1, 1]]
    expected = [[0, 0.116, 0, 0.116, 0, 0, 0, 0], [0.116, 0, 0.116, 0, 0, 0, 0, 0]]
    assert script.tf_idf(counts).round(3).to_numpy().tolist() == expected
    # An empty document gets zeros, not a division by zero.
    with_empty = script.tf_idf(script.count_vectorize(["the cat", ""]))
    assert np.isfinite(with_empty.to_numpy()).all() and not with_empty.iloc[1].any()


def test_stems_and_stop_words():
    script = load_script(VECTORIZE)
    assert [script.stem(word) for word in ("cat", "cats", "cat's", "cats'")] == ["cat"] * 4
    assert script.stem_tokenize("Running <b>films</b>") == ["run", "film"]
    assert script.content_tokenize("the film was not good") == ["film", "good"]
    assert script.tokenize("Don't<br />stop, it's 'fine'") == ["don't", "stop", "it's", "fine"]


def test_vectorize_text_as_a_user_runs_it(run_script, tmp_path):
    result = run_script(VECTORIZE, "--data", "sample", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "doc 0  0.000  0.116" in result.stdout
    rows = [line.rsplit(maxsplit=2) for line in result.stdout.splitlines()[-9:]]
    accuracy = {name.strip(): float(value) for name, _, value in rows}
    assert len(accuracy) == 9 and min(accuracy.values()) > 0.6
    assert accuracy["TF-IDF, words and pairs"] > accuracy["TF-IDF"]
    # Hashed into many columns bare counts stay what they are.
    assert accuracy["counts hashed into 262,144"] == pytest.approx(accuracy["counts"], abs=0.02)
    cat = TfidfVectorizer().fit_transform(load_script(VECTORIZE).DOCUMENTS).toarray()[0, 1]
    assert f"{cat:.3f}" in result.stdout  # scikit-learn's
    wrong = run_script(VECTORIZE, "--data", tmp_path)
    assert wrong.returncode == 1 and "train/{neg,pos}" in wrong.stderr


# Word vectors -------------------------------------------------------------------------------------


def test_cats_are_more_like_dogs_than_lizards(run_script, tmp_path):
    picture = tmp_path / "new" / "words.png"
    options = ["--data", "sample", "--analogy", "cat", "dog", "lizard", "--picture", picture]
    result = run_script(WORDS, *options)
    assert result.returncode == 0, result.stderr
    line = next(line for line in result.stdout.splitlines() if line.startswith("cat "))
    _, itself, dog, lizard = line.split()
    assert float(itself) == 1 and float(dog) > float(lizard) + 0.2
    assert "cat is to dog as lizard is to:" in result.stdout
    assert picture.stat().st_size > 10_000
    missing = run_script(WORDS, "--data", "sample", "--words", "cat", "qqq")
    assert missing.returncode == 1 and "no vectors for qqq" in missing.stderr


def test_analogies_are_computed_with_directions():
    script = load_script(WORDS)
    male, female, royal = np.eye(3)
    vectors = {"man": male, "woman": female, "king": male + royal, "queen": female + royal}
    units = pd.DataFrame({**vectors, "stone": -royal, "nothing": 0 * royal}).T
    units = units.div(np.linalg.norm(units, axis=1).clip(min=1e-9), axis=0)
    found = script.find_analogy(units, "man", "king", "woman", top=1)
    assert found.index.tolist() == ["queen"]
    nearest = script.find_nearest(units, units.loc["king"], ["king"], top=2)
    assert nearest["queen"] == pytest.approx(0.5)


NUMBERS = {"cat": [0.1, -2], "don't": [3e-5, 4], ". . .": [5, 6]}


@pytest.mark.parametrize(
    "text",
    [
        "cat 0.1 -2\ndon't 3e-5 4\n. . . 5 6\n",
        "cat 0.1 -2\ndon't 3e-5 4\n. . . 5 6",  # no end of the last line
        "3 2\ncat 0.1 -2 \ndon't 3e-5 4 \n. . . 5 6 \n",  # word2vec: a header, spaces at the ends
        "cat\t0.1\t-2\r\ndon't\t3e-5\t4\r\n. . .\t5\t6\r\n",
    ],
)
def test_files_of_word_vectors_as_others_write_them(glove, tmp_path, text):
    path = tmp_path / "vectors.txt"
    path.write_bytes(text.encode())
    found = glove.load_word_vectors(path)
    assert {word: vector.tolist() for word, vector in found.items()} == {
        word: np.float32(vector).tolist() for word, vector in NUMBERS.items()
    }


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda text: text[:-30], "line 336"),  # cut in mid-line
        (lambda text: text.replace("turkey ", "turkey abc", 1), "line 2:"),
        (lambda text: text.replace("\nthree", "\n\nthree", 1), "line 3:"),
        (lambda text: "no vectors here", "line 1"),
        (lambda text: "", "not one word"),
    ],
)
def test_a_damaged_line_of_vectors_is_named(glove, tmp_path, change, where):
    path = tmp_path / "vectors.txt"
    path.write_text(change(VECTORS.read_text()))
    with pytest.raises(ValueError, match=where):
        glove.embedding_index_to_matrix(glove.load_word_vectors(path), ["", "[UNK]", "cat"])


def test_rows_of_the_matrix_belong_to_the_words(glove):
    index = {"cat": np.array([1, 2], "float32"), "dog": np.array([3, 5], "float32")}
    words = ["", "[UNK]", "the", "dog", "cat"]
    # A small vocabulary: two rows more than words, where the book's matrix is too short.
    matrix = glove.embedding_index_to_matrix(index, words)
    assert matrix.tolist() == [[0, 0], [0, 0], [0, 0], [3, 5], [1, 2]]
    filled = glove.embedding_index_to_matrix(index, words, fill=True)
    assert filled[[0, 3, 4]].tolist() == [[0, 0], [3, 5], [1, 2]]
    assert filled[1:3].all() and not np.allclose(filled[1], filled[2])  # told apart


def test_vectors_of_the_real_glove(real_data_dir):
    script = load_script(WORDS)
    index = script.load_word_vectors(real_data_dir / "glove.6B.50d.txt")
    vectors = pd.DataFrame(np.stack(list(index.values())), index=list(index))
    units = vectors.div(np.linalg.norm(vectors, axis=1), axis=0)
    assert units.loc["cat"] @ units.loc["dog"] == pytest.approx(0.92, abs=0.01)
    assert units.loc["cat"] @ units.loc["lizard"] == pytest.approx(0.68, abs=0.01)
    assert script.find_analogy(units, "man", "king", "woman").index[0] == "queen"
    assert script.find_analogy(units, "france", "paris", "germany").index[0] == "berlin"


# word2vec -----------------------------------------------------------------------------------------


def test_skip_gram_pairs_stay_near_and_in_their_review():
    script = load_script(WORD2VEC)
    tokens, documents = np.arange(10, dtype="int32"), np.repeat([0, 1], 5).astype("int32")
    pairs = set()
    for seed in range(30):
        centres, contexts = script.skip_gram_pairs(
            tokens, documents, 2, np.random.default_rng(seed)
        )
        distances = np.abs(centres - contexts)
        assert set(distances) <= {1, 2} and (centres // 5 == contexts // 5).all()
        assert (distances == 1).sum() == 16  # a window is never smaller than 1
        pairs |= set(zip(centres.tolist(), contexts.tolist(), strict=True))
    assert len(pairs) == 28  # every pair at distance 1 or 2 within a review, both ways round


def test_frequent_words_are_thinned_out_and_negatives_follow_the_counts():
    script = load_script(WORD2VEC)
    counts = np.array([90_000, 9_900, 100])
    expected = [math.sqrt(1e-4 / 0.9), math.sqrt(1e-4 / 0.099), math.sqrt(1e-4 / 0.001)]
    np.testing.assert_allclose(script.keep_probability(counts), expected)
    assert script.keep_probability(np.ones(20_000)).min() == 1
    data = {"tokens": np.tile(np.arange(3, dtype="int32"), 20_000), "counts": counts}
    data["documents"] = np.zeros(60_000, dtype="int32")
    inputs, labels = next(script.generate_batches(data, 5000, np.random.default_rng(1)))
    assert inputs["candidates"].shape == labels.shape == (5000, 6)
    assert labels[:, 0].all() and not labels[:, 1:].any()
    share = np.bincount(inputs["candidates"][:, 1:].ravel(), minlength=3) / labels[:, 1:].size
    np.testing.assert_allclose(share, counts**0.75 / (counts**0.75).sum(), atol=0.02)


@pytest.mark.slow
def test_word2vec_learns_and_the_others_read_its_file(run_script, glove, tmp_path):
    """Two subjects whose words never meet in a review: afterwards each finds its own."""
    rng = np.random.default_rng(0)
    files = {}
    for kind in ("train/pos", "train/neg", "test/pos", "test/neg"):
        for number in range(100 if "train" in kind else 10):
            text = " ".join(f"{kind[-3:]}{i}" for i in rng.integers(0, 10, 200))
            files[f"x/{kind}/{number}.txt"] = text.encode()
    archive = write_tar(tmp_path / "reviews.tar.gz", files)
    output = tmp_path / "new" / "vectors.txt"
    options = ["--epochs", 8, "--batch-size", 64, "--output", output]
    result = run_script(WORD2VEC, "--data", archive, *options)
    assert result.returncode == 0, result.stderr
    vectors = glove.load_word_vectors(output)
    assert len(vectors) == 20 and len(vectors["pos3"]) == 100
    units = {word: vector / np.linalg.norm(vector) for word, vector in vectors.items()}
    for word, unit in units.items():
        nearest = sorted(units, key=lambda other: units[other] @ unit)[-8:]
        assert {other[:3] for other in nearest} == {word[:3]}
    for wrong in ([POSTS, "--output", tmp_path / "x"], [archive, "--output", output]):
        result = run_script(WORD2VEC, "--data", *wrong)
        assert result.returncode == 1 and result.stderr.startswith("error: ")


# Reading ------------------------------------------------------------------------------------------


def test_archives_and_folders_give_the_same(imdb, cnn, tmp_path):
    for script, archive, folder in ((imdb, REVIEWS, "aclImdb"), (cnn, POSTS, "20_newsgroup")):
        with tarfile.open(archive) as tar:
            tar.extractall(tmp_path, filter="data")
        (tmp_path / folder / ".DS_Store").write_bytes(b"\0")
        for file in [*(tmp_path / folder).glob("*/*")][:3]:
            (file.parent / "._hidden").write_bytes(b"\0")
        packed, unpacked = script.load_data("sample"), script.load_data(tmp_path / folder)
        assert packed.keys() == unpacked.keys()
        for name in packed:
            assert np.array_equal(packed[name], unpacked[name]), name
    assert [len(packed[f"{part}_y"]) for part in PARTS] == [480, 60, 60]
    assert {tuple(np.bincount(packed[f"{part}_y"])) for part in PARTS} == {(24,) * 20, (3,) * 20}


def test_an_archive_of_the_class_folders_themselves_and_one_that_leads_outside(cnn, tmp_path):
    files = {f"{name}/{i}": b"Text." for name in ("b", "a") for i in range(10)}
    assert cnn.load_data(write_tar(tmp_path / "x.tar", files))["class_names"] == ["a", "b"]
    with pytest.raises(tarfile.TarError):
        cnn.load_data(write_tar(tmp_path / "x.tar.gz", {"top/../../../evil": b"x"}))


def test_headers_are_cut_off_and_nothing_else(cnn):
    post = "From: a@b.c\nNewsgroups: sci.med\nSubject: x\n\nFirst line: y\n\nSecond part.\n"
    assert cnn.HEADER.sub("", post) == "First line: y\n\nSecond part.\n"
    folded = "Nntp-Posting-Host: x\nReferences: <1>\n <2>\n\t<3>\nNewsgroups: sci.med\n\nText"
    assert cnn.HEADER.sub("", folded) == "Text"
    for text in ("Note: mind this\n\nand that", "Plain text\n\nFrom: nobody", "", "Re: \n\nyes"):
        assert cnn.HEADER.sub("", text) == text
    assert not [text for text in cnn.load_data("sample")["train_X"] if "Newsgroups:" in text]


def test_one_policy_for_encodings(cnn, glove, tmp_path):
    file = tmp_path / "1"
    for script in (cnn, glove, load_script(LSTM)):
        for content in ("naïve".encode(), "naïve".encode("latin-1"), b"\xef\xbb\xbfna\xc3\xafve"):
            file.write_bytes(content)
            assert script.read_text(file) == "naïve"
        file.write_text("naïve", encoding="utf-16")
        with pytest.raises(ValueError, match="1 is no text, or UTF-16"):
            script.read_text(file)


def test_keras_word_numbers_become_words(imdb, monkeypatch):
    import keras

    index = {"the": 1, "film": 2, "good": 3}
    part = np.array([[1, 4, 5, 2], [1, 6]], dtype=object), np.array([0, 1])
    monkeypatch.setattr(keras.datasets.imdb, "get_word_index", lambda: index)
    texts, y = imdb.turn_into_words(part)
    assert texts.tolist() == ["the film", "good"] and y.tolist() == [0, 1]


def test_quotes_and_signatures_are_cut_off_and_copies_counted(average):
    post = "In article <1> a@b writes:\n> yours\nMine.\n\nMore of mine.\n\n--\nA. Name, Inc.\n"
    assert average.strip_quotes(post) == "Mine.\n\nMore of mine."
    assert average.strip_quotes("One paragraph.\n") == "One paragraph."
    assert average.strip_quotes("> all of it\n") == ""
    data = {"train_X": ["a", "b", "c", "c"], "train_y": [0, 0, 0, 1]}
    data |= {"test_X": ["a", "b", "c", "d"], "test_y": [0, 1, 1, 0]}
    assert average.count_copies(data) == {"all": 3, "of_other_classes": 1}


# Networks -----------------------------------------------------------------------------------------


def test_networks_are_the_books(cnn, glove, imdb):
    model = cnn.build_model(TEXTS)
    counts = {layer.name: layer.count_params() for layer in model.layers if layer.weights}
    convolutions = [5 * size * 128 + 128 for size in (100, 128, 128)]
    assert [*counts.values()] == [2_000_000, *convolutions, 128 * 128 + 128, 128 * 20 + 20]
    names = [layer.name for layer in model.layers if layer.weights]
    index = {"good": np.ones(1000, "float32"), "bad": -np.ones(1000, "float32")}
    for fine_tune in (False, True):
        model = glove.build_model(TEXTS, index, 20, fine_tune)
        embedding = model.get_layer("embedding")
        assert embedding.trainable == fine_tune and embedding.get_weights()[0].shape[1] == 1000
        assert [layer.name for layer in model.layers if layer.weights] == names
        assert len(model.to_json()) < 20_000  # no matrix in it
    # 4 gates, each with 100 words' numbers, 10 of its own and a bias for 10 units.
    model = imdb.build_network(TEXTS, steps=10)
    assert model.count_params() == 2_000_000 + 4 * (100 + 10 + 1) * 10 + 10 + 1 == 2_004_451
    lstm = model.get_layer("lstm1")
    assert lstm.dropout == lstm.recurrent_dropout == 0.2
    rate = model.optimizer._learning_rate
    assert [float(rate(step)) for step in (0, 10, 20)] == pytest.approx([5e-3, 3e-3, 1.8e-3])


def test_neither_padding_nor_emptiness_changes_an_answer(cnn, imdb, average):
    """Alone and among long texts the same; and of a text without a word no NaN."""
    networks = [
        cnn.build_model(TEXTS, 2, vocab_size=30),
        imdb.build_network(TEXTS, steps=10, vocab_size=30),
        load_script(LSTM).build_model(TEXTS, 2, vocab_size=30),
        average.build_network(TEXTS, 2, vocab_size=30),
        average.build_network(TEXTS, 2, ngrams=2, vocab_size=30),
    ]
    rng = np.random.default_rng(0)
    for model in networks:
        for weight in model.trainable_weights:  # signals from padding, too
            fan_in = 1 if "embedding" in weight.path else np.prod(weight.shape[:-1])
            weight.assign(rng.normal(size=weight.shape) / np.sqrt(fan_in))
        together = model.predict(TEXTS[:5], verbose=0)
        alone = np.concatenate([model.predict(TEXTS[i : i + 1], verbose=0) for i in range(5)])
        np.testing.assert_allclose(together, alone, atol=1e-5)
        assert np.isfinite(together).all() and np.ptp(together[:, 0]) > 1e-4


def test_batches_hold_every_text_once_and_texts_of_like_length(cnn):
    X = np.array(["x" * n for n in range(0, 4000, 10)], dtype=object)
    batches = cnn.batch_by_length(X, np.arange(400), 16, seed=1)
    epochs = [[y.numpy().tolist() for _, y in batches] for _ in range(2)]
    assert len(batches) == len(epochs[0]) and epochs[0] != epochs[1]
    assert sorted(sum(epochs[0], [])) == list(range(400))
    assert max(max(batch) - min(batch) for batch in epochs[0]) <= 100  # of 1,000 characters


def test_average_counts_pairs_only_where_it_is_asked_to(average):
    model = average.build_network(np.array(["not good", "good not"], dtype=object), 2, ngrams=2)
    words = model.get_layer("vectorizer").get_vocabulary()
    assert {"not", "good", "not good", "good not"} <= set(words)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["newsgroups", "imdb"])
def test_average_learns_the_sample(run_script, average, kind, tmp_path):
    import keras

    options = [kind, "--data", "sample", "--ngrams", 2, "--run-dir", tmp_path / "run"]
    result = run_script(AVERAGE, *options)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    accuracy, baseline = metrics["test"]["accuracy"], metrics["baselines"]["tfidf_accuracy"]
    assert accuracy > (0.6 if kind == "imdb" else 0.4)  # chance: 0.5 and 0.05
    assert metrics["lead"]["mean"] == pytest.approx(accuracy - baseline, abs=1e-6)
    assert 0 < metrics["lead"]["error"] < 0.1
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert np.isfinite(model.predict(np.array(["", "good"], dtype=object), verbose=0)).all()
    again = run_script(AVERAGE, *options)
    errors = [line for line in again.stderr.splitlines() if line.startswith("error: ")]
    assert again.returncode == 1 and "Traceback" not in again.stderr
    assert len(errors) == 1 and "File exists" in errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("script", [CNN, IMDB, AVERAGE])
def test_jax_is_refused_in_one_line(run_script, script, tmp_path):
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    options = ["newsgroups"] if script == AVERAGE else []
    options += ["--data", "sample", "--run-dir", tmp_path / "run"]
    result = run_script(script, *options, env={"KERAS_BACKEND": "jax"})
    assert result.returncode == 1 and "needs the TensorFlow backend" in result.stderr
    assert len([line for line in result.stderr.splitlines() if "error" in line]) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_real_sets(cnn, imdb, real_data_dir):
    posts = cnn.load_data(real_data_dir / "20_newsgroup")
    assert [len(posts[f"{part}_y"]) for part in PARTS] == [15_997, 2_000, 2_000]
    assert not [text for text in posts["train_X"] if text.startswith(("Xref:", "Path:", "Nntp"))]
    reviews = imdb.load_data(real_data_dir / "aclImdb")
    assert [len(reviews[f"{part}_y"]) for part in PARTS] == [20_000, 5_000, 25_000]
    assert reviews["test_y"].mean() == 0.5
