"""Chapter 10: vectors of texts and words, LSTM of IMDB, CNN of the newsgroups, bad input."""

import inspect
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_clear_error, kill_in_training, load_script, run_python
from sklearn.feature_extraction.text import TfidfVectorizer

VECTORIZE, WORDS, WORD2VEC = (
    f"chapter10/{name}.py" for name in ("vectorize_text", "word_vectors", "word2vec_imdb")
)
IMDB, CNN, GLOVE, LSTM = (
    f"chapter10/{name}.py"
    for name in ("lstm_imdb", "cnn_newsgroups", "cnn_newsgroups_glove", "lstm_newsgroups")
)
SAMPLES = ROOT / "data" / "samples"
REVIEWS, POSTS = SAMPLES / "aclImdb.tar.gz", SAMPLES / "20_newsgroup.tar.gz"
VECTORS = SAMPLES / "glove.sample.50d.txt"
PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def imdb():
    return load_script(IMDB)


@pytest.fixture(scope="module")
def cnn():
    return load_script(CNN)


@pytest.fixture(scope="module")
def glove():
    return load_script(GLOVE)


@pytest.fixture(scope="module")
def posts(cnn):
    """The sample's posts, split and as word ids of 160 words a post, for speed."""
    return cnn.tokenize_text(cnn.train_val_test_split(cnn.load_data("sample")), 20000, 160)


@pytest.fixture(scope="module")
def reviews(imdb):
    return imdb.load_data(source="sample")


@pytest.fixture
def run_main(monkeypatch, capsys):
    """`main()` of a script in this process: what a test of messages needs, without a start-up."""

    def run(script, *args):
        monkeypatch.setattr(sys, "argv", [script, *map(str, args)])
        capsys.readouterr()
        try:
            load_script(script).main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, slow_training):
    """The LSTM trained from its own folder as a user would do it: (process, run directory)."""
    run_dir = tmp_path_factory.mktemp("imdb") / "run"
    arguments = ["--data", "sample", "--epochs", 9, "--batch-size", 16, "--run-dir", run_dir]
    return run_python(IMDB, *arguments, cwd=ROOT / "chapter10"), run_dir


def make_tar(path, files, sizes=None):
    """A .tar.gz of {name: bytes}."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def make_posts(folder, groups, count=12, text="Subject: x\n\nsome words about {}, number {}\n"):
    """A folder of `count` posts for each group."""
    for group in groups:
        (folder / group).mkdir(parents=True)
        for number in range(count):
            (folder / group / str(number)).write_text(text.format(group, number))
    return folder


# --- bag of words -----------------------------------------------------------------------------


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


def test_tf_idf_by_hand_is_scikit_learns():
    script = load_script(VECTORIZE)
    documents = [*script.DOCUMENTS, "the dog saw the other dog"]
    by_hand = script.sklearn_tf_idf(script.count_vectorize(documents))
    vectorizer = TfidfVectorizer()
    np.testing.assert_allclose(by_hand, vectorizer.fit_transform(documents).toarray())
    assert list(by_hand) == list(vectorizer.get_feature_names_out())


def test_stems_stop_words_and_hashing():
    script = load_script(VECTORIZE)
    assert [script.stem(word) for word in ("cat", "cats", "cat's", "cats'")] == ["cat"] * 4
    assert script.stem_tokenize("Running <b>films</b>") == ["run", "film"]
    assert script.content_tokenize("the film was not good") == ["film", "good"]
    assert script.tokenize("Don't<br />stop, it's 'fine'") == ["don't", "stop", "it's", "fine"]
    words = [f"word{number}" for number in range(500)]
    assert script.hash_collisions(words, 4) == 500
    # 500 words in 2**16 columns: 500 * 499 / 2 / 65,536 = 1.9 pairs expected to collide.
    assert script.hash_collisions(words, 2**16) < 20


def test_vectorize_text_as_a_user_runs_it(run_script, tmp_path):
    result = run_script(VECTORIZE, "--data", "sample", "--run-dir", tmp_path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "doc 0  0.000  0.116" in result.stdout and "stand-in" in result.stdout
    scores = json.loads((tmp_path / "metrics.json").read_text())["val"]
    assert len(scores) == 9 and min(scores.values()) > 0.6
    assert scores["TF-IDF, words and pairs_accuracy"] > scores["TF-IDF_accuracy"]
    wrong = run_script(VECTORIZE, "--data", tmp_path)
    assert_clear_error(wrong, str(tmp_path), "train/neg/*.txt")


# --- word vectors -----------------------------------------------------------------------------


def test_cats_are_more_like_dogs_than_lizards(run_main, tmp_path):
    script = load_script(WORDS)
    vectors = script.WordVectors(script.load_word_vectors(VECTORS))
    assert vectors.matrix.shape == (336, 50)
    assert vectors.similarity("cat", "dog") > vectors.similarity("cat", "lizard") + 0.2
    assert vectors.similarity("cat", "cat") == pytest.approx(1, abs=1e-5)
    words = [word for word, _ in vectors.nearest("church", top=4)]
    assert "church" not in words and set(words) & {"prayer", "scripture", "baptism", "grace"}
    result = run_main(WORDS, "--data", "sample", "--run-dir", tmp_path)
    assert result.returncode == 0 and (tmp_path / "words.png").stat().st_size > 10_000
    missing = run_main(WORDS, "--data", "sample", "--run-dir", tmp_path, "--words", "cat", "qqq")
    assert_clear_error(missing, "'qqq' has no vector")


def test_analogies_are_computed_with_directions():
    script = load_script(WORDS)
    male, female, royal = np.eye(3, dtype="float32")
    vectors = script.WordVectors(
        {
            "man": male,
            "woman": female,
            "king": male + royal,
            "queen": female + royal,
            "stone": -royal,
            "nothing": np.zeros(3, dtype="float32"),
        }
    )
    assert vectors.analogy("man", "king", "woman", top=1)[0][0] == "queen"
    assert vectors.similarity("king", "queen") == pytest.approx(0.5)
    assert vectors.similarity("king", "nothing") == 0


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda text: text[:-30], "line 336"),  # cut in mid-line
        (lambda text: text[:-1], "line 336"),  # cut in the last number: no line end
        (lambda text: text.replace("turkey ", "turkey 0.1 ", 1), "line 2 "),
        (lambda text: text.replace("turkey ", "turkey abc", 1), "line 2 "),
        (lambda text: text.replace("turkey -", "turkey nan -", 1), "line 2 "),
        (lambda text: text.replace("\nthree", "\n\nthree", 1), "line 3 "),
        (lambda text: "", "is empty"),
    ],
)
def test_a_damaged_line_of_vectors_is_named(run_main, tmp_path, change, where):
    path = tmp_path / "vectors.txt"
    path.write_text(change(VECTORS.read_text()))
    result = run_main(WORDS, "--data", path, "--run-dir", tmp_path / "run")
    assert_clear_error(result, str(path), where)
    assert not (tmp_path / "run").exists()
    result = run_main(GLOVE, "--data", "sample", "--vectors", path, "--run-dir", tmp_path / "run")
    assert_clear_error(result, str(path), where)
    assert not (tmp_path / "run").exists()


def test_vectors_of_the_real_glove(real_data_dir):
    script = load_script(WORDS)
    vectors = script.WordVectors(script.load_word_vectors(real_data_dir / "glove.6B.50d.txt"))
    assert vectors.similarity("cat", "dog") == pytest.approx(0.92, abs=0.01)
    assert vectors.similarity("cat", "lizard") == pytest.approx(0.68, abs=0.01)
    assert vectors.analogy("man", "king", "woman", top=1)[0][0] == "queen"
    assert vectors.analogy("france", "paris", "germany", top=1)[0][0] == "berlin"


# --- word2vec ---------------------------------------------------------------------------------


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
    data = {
        "tokens": np.tile(np.arange(3, dtype="int32"), 20_000),
        "documents": np.zeros(60_000, dtype="int32"),
        "counts": counts,
    }
    batches = script.PairBatches(data, 5000, window=2, negatives=5, seed=1)
    inputs, labels = batches[0]
    assert inputs["candidates"].shape == labels.shape == (len(inputs["centre"]), 6)
    assert labels[:, 0].all() and not labels[:, 1:].any()
    share = np.bincount(inputs["candidates"][:, 1:].ravel(), minlength=3) / labels[:, 1:].size
    np.testing.assert_allclose(share, counts**0.75 / (counts**0.75).sum(), atol=0.02)


def test_word2vec_learns_and_the_others_read_its_file(run_main, glove, tmp_path):
    """Two subjects whose words never meet in a review: afterwards each finds its own."""
    rng = np.random.default_rng(0)
    for sentiment in ("pos", "neg"):
        (tmp_path / "data" / "train" / sentiment).mkdir(parents=True)
        for number in range(100):
            text = " ".join(f"{sentiment}{i}" for i in rng.integers(0, 10, 200))
            (tmp_path / "data" / "train" / sentiment / f"{number}.txt").write_text(text)
    result = run_main(
        WORD2VEC, "--data", tmp_path / "data", "--epochs", 8, "--batch-size", 128,
        "--dimension", 16, "--run-dir", tmp_path / "run",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["train"]["loss_by_epoch"]) == 8 and metrics["parameters"] == 2 * 20 * 16
    vectors = glove.load_word_vectors(tmp_path / "run" / "vectors.txt")
    assert len(vectors) == 20 and len(vectors["pos3"]) == 16
    matrix, words = np.stack(list(vectors.values())), list(vectors)
    for word in words:
        nearest = load_script(WORD2VEC).nearest_words(matrix, words, word)
        assert {other[:3] for other in nearest} == {word[:3]}
    assert_clear_error(
        run_main(WORD2VEC, "--data", POSTS, "--run-dir", tmp_path / "no"), "holds no reviews"
    )


# --- reading folders and archives -------------------------------------------------------------


def test_archives_and_folders_give_the_same(imdb, cnn, reviews, tmp_path):
    for archive in (REVIEWS, POSTS):
        with tarfile.open(archive) as packed:
            packed.extractall(tmp_path, filter="data")
    assert len(reviews["train_y"]) == 400 and len(reviews["val_y"]) == 100
    unpacked = imdb.load_data(source=tmp_path / "aclImdb")
    assert unpacked["vocabulary"] == reviews["vocabulary"]
    for part in PARTS:
        assert np.array_equal(unpacked[f"{part}_y"], reviews[f"{part}_y"])
        for a, b in zip(unpacked[f"{part}_X"], reviews[f"{part}_X"], strict=True):
            assert np.array_equal(a, b)
    packed, unpacked = cnn.load_data("sample"), cnn.load_data(tmp_path / "20_newsgroup")
    assert packed["texts"] == unpacked["texts"]
    assert np.array_equal(packed["labels"], unpacked["labels"])
    assert len(packed["class_names"]) == 20 and len(packed["texts"]) == 600


def test_headers_are_cut_off_and_nothing_else(cnn):
    post = "From: a@b.c\nNewsgroups: sci.med\nSubject: x\n\nFirst line: y\n\nSecond part.\n"
    assert cnn.strip_header(post) == "First line: y\n\nSecond part.\n"
    assert cnn.strip_header("Subject: a header alone\n") == ""
    assert cnn.strip_header("Plain text\n\nwithout a header") == "Plain text\n\nwithout a header"
    assert cnn.decode(b"na\xefve\r\n") == "naïve\n" and cnn.decode("naïve".encode()) == "naïve"
    texts = cnn.load_data("sample")["texts"]
    assert not any("Message-ID:" in text or "Newsgroups:" in text for text in texts)


def test_archives_that_lead_outside_or_are_broken(run_main, tmp_path):
    hostile = make_tar(tmp_path / "up.tar.gz", {"20_newsgroup/../../a/1": b"x", "x/a/1": b"y"})
    broken = tmp_path / "cut.tar.gz"
    broken.write_bytes(POSTS.read_bytes()[:20_000])
    huge = make_tar(tmp_path / "huge.tar.gz", {"x/a/1": b"0" * 1_000_001})
    cases = [(hostile, "leads out"), (broken, "no readable tar"), (huge, "1,000,001 bytes")]
    for path, message in [*cases, (VECTORS, "no readable tar")]:
        result = run_main(CNN, "--data", path, "--run-dir", tmp_path / "run")
        assert_clear_error(result, str(path), message)
    hostile = make_tar(tmp_path / "up2.tar.gz", {"/aclImdb/train/pos/1.txt": b"x"})
    result = run_main(IMDB, "--data", hostile, "--run-dir", tmp_path / "run")
    assert_clear_error(result, "leads out")
    assert not (tmp_path / "run").exists() and not (tmp_path.parent / "a").exists()


def test_wrong_folders(run_main, tmp_path):
    for script in (CNN, GLOVE, LSTM):
        result = run_main(script, "--data", tmp_path / "none", "--run-dir", tmp_path / "run")
        assert_clear_error(result, "none does not exist", "data/fetch.py", "--data sample")
    one_class = make_posts(tmp_path / "one", ["sci.med"])
    few = make_posts(tmp_path / "few", ["a", "b"], count=9)
    reviews_folder = tmp_path / "aclImdb"
    make_posts(reviews_folder / "train", ["pos", "neg"])  # one level deeper than posts lie
    for path, words in (
        (one_class, ["1 class folders", "sci.med (12)"]),
        (few, ["a (9), b (9)"]),
        (reviews_folder, ["0 class folders"]),
    ):
        result = run_main(CNN, "--data", path, "--run-dir", tmp_path / "run")
        assert_clear_error(result, str(path), *words)
    result = run_main(IMDB, "--data", POSTS, "--run-dir", tmp_path / "run")
    assert_clear_error(result, "0 negative and 0 positive", "train/neg/*.txt")
    result = run_main(IMDB, "--data", tmp_path / "none", "--run-dir", tmp_path / "run")
    assert_clear_error(result, "does not exist")
    wordless = make_posts(tmp_path / "wordless", ["a", "b"], text="?! …\n")
    result = run_main(CNN, "--data", wordless, "--run-dir", tmp_path / "run")
    assert_clear_error(result, "hold no words")
    assert not (tmp_path / "run").exists()


# --- IMDB -------------------------------------------------------------------------------------


def test_lstm_is_the_books(imdb):
    model = imdb.build_network()
    assert [layer.count_params() for layer in model.layers if layer.weights] == [
        20_000 * 100,
        4 * (100 * 10 + 10 * 10 + 10),
        11,
    ]
    lstm = model.get_layer("lstm1")
    assert (lstm.units, lstm.dropout, lstm.recurrent_dropout) == (10, 0.2, 0.2)


def test_padding_changes_no_prediction(imdb):
    model = imdb.build_network(vocab_size=50)
    ids = np.array([[7, 8, 9]], dtype="int32")
    padded = np.pad(ids, [(0, 0), (0, 47)])
    expected = np.asarray(model(ids))
    np.testing.assert_allclose(np.asarray(model(padded)), expected, atol=1e-6)
    assert not np.allclose(np.asarray(model(np.pad(ids, [(0, 0), (0, 1)], "edge"))), expected)


def test_batches_are_of_like_length_and_hold_every_review_once(imdb):
    rng = np.random.default_rng(0)
    documents = [rng.integers(2, 90, n, dtype="int32") for n in rng.integers(0, 300, 103)]
    labels = np.arange(103)
    batches = imdb.BucketedBatches(documents, labels, 10, max_length=220, seed=3)
    orders = []
    for _ in range(2):
        contents = [batches[i] for i in range(len(batches))]
        rows = np.concatenate([y for _, y in contents])
        assert sorted(rows) == list(labels) and len(contents) == 11
        for X, y in contents:
            lengths = np.array([len(documents[row]) for row in y])
            assert X.shape[1] % 50 == 0 and X.shape[1] <= 250
            # At most the bucket where two lengths meet holds reviews of another bucket.
            assert X.shape[1] - 50 < max(lengths.max(), 1)
            for row, ids in zip(y, X, strict=True):
                expected = documents[row][-220:]  # of a long review the last words are kept
                assert np.array_equal(ids[: len(expected)], expected)
                assert not ids[len(expected) :].any()
        padding = sum((X == 0).sum() for X, _ in contents)
        assert padding < 0.35 * sum(X.size for X, _ in contents)
        assert contents[0][0].shape[1] != contents[1][0].shape[1]  # what Keras must see
        orders.append(rows)
        batches.on_epoch_end()
    assert not np.array_equal(*orders)
    again = imdb.BucketedBatches(documents, labels, 10, max_length=220, seed=3, epoch=1)
    rows = np.concatenate([again[i][1] for i in range(len(again))])
    assert np.array_equal(rows, orders[1])  # a resumed run goes on with the same order
    whole = imdb.BucketedBatches(documents, labels, 10)
    assert sum((whole[i][0] > 0).sum() for i in range(len(whole))) == sum(map(len, documents))


def test_ids_of_keras_and_of_raw_text_agree(imdb, monkeypatch):
    """`--text` must number the words as the reviews that Keras serves are numbered."""
    words = ["the", "film", "was", "good", "bad", "i\x85", "rare"]
    index = {word: rank for rank, word in enumerate(words, start=1)}
    texts = ["the film was good", "the rare film was bad", "bad"] * 10

    def load(num_words):
        encoded = [[1, *(index[word] + 3 for word in text.split())] for text in texts]
        encoded = [[i if i < num_words else 2 for i in review] for review in encoded]
        labels = np.array([1, 0, 0] * 10)
        return (encoded, labels), (encoded, labels)

    monkeypatch.setattr(keras.datasets.imdb, "load_data", load)
    monkeypatch.setattr(keras.datasets.imdb, "get_word_index", lambda: index)
    data = imdb.load_data(vocab_size=8)
    assert data["vocabulary"] == words[:6]  # two ids are for padding and for unknown words
    assert [len(data[f"{part}_y"]) for part in PARTS] == [24, 6, 30]
    from_text = imdb.texts_to_ids(imdb.build_vectorizer(data["vocabulary"]), texts)
    for keras_ids, text_ids in zip(data["test_X"], from_text, strict=True):
        assert np.array_equal(keras_ids, text_ids)
    assert data["test_X"][1].tolist() == [2, 1, 3, 4, 6]  # "rare" has none


def test_imdb_that_cannot_be_fetched(run_main, monkeypatch, tmp_path):
    def fail(num_words):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.imdb, "load_data", fail)
    result = run_main(IMDB, "--run-dir", tmp_path / "run")
    assert_clear_error(result, "URL fetch failure", "--data sample", "--data FOLDER")


def test_reviews_are_cleaned(imdb):
    text = "Great.<br /><br />I didn't like 'X-Men'; naïve ÉCLAIR"
    cleaned = imdb.clean_text([text]).numpy()[0].decode()
    assert cleaned.split() == ["great", "i", "didn't", "like", "x", "men", "naïve", "éclair"]


def test_lstm_learns_and_leaves_everything(trained):
    process, run_dir = trained
    assert process.returncode == 0, process.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert "stand-in" in metrics["data"] and "stand-in" in process.stdout
    history = pd.read_csv(run_dir / "history.csv")
    assert metrics["epochs"] == 9 == len(history)
    # The model that is scored is that of the best epoch.
    assert metrics["val"]["accuracy"] == pytest.approx(history["val_accuracy"].max(), abs=1e-4)
    # 500 test reviews, half of them good: three standard errors above chance are 0.567.
    assert metrics["test"]["accuracy"] > 0.65
    assert metrics["baselines"]["tfidf_logistic_regression_accuracy"] > 0.7
    for name in ("model.keras", "text_model.keras", "learning_curves.png"):
        assert (run_dir / name).stat().st_size > 5000


@pytest.mark.slow
def test_a_text_is_scored_in_a_fresh_process(trained, run_script, imdb):
    """What the saved model says of raw strings is what the trained one says of word ids."""
    _, run_dir = trained
    texts, labels = imdb.read_reviews(REVIEWS)
    text = texts["test"][0]
    result = run_script(IMDB, "--run-dir", run_dir, "--text", text)
    assert result.returncode == 0, result.stderr
    model, _ = imdb.load_saved(run_dir, "model.keras")
    text_model, _ = imdb.load_saved(run_dir, "text_model.keras")
    ids = imdb.texts_to_ids(text_model.get_layer("vectorizer"), texts["test"][:50])
    expected = np.concatenate([np.asarray(model(row[None])) for row in ids])
    found = np.asarray(text_model(keras.ops.convert_to_tensor(np.array(texts["test"][:50]))))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert f"{expected[0, 0]:.3f} probability" in result.stdout
    # An empty document among others, and one alone.
    assert text_model(keras.ops.convert_to_tensor(np.array(["", "good"]))).shape == (2, 1)
    assert text_model(keras.ops.convert_to_tensor(np.array([""]))).shape == (1, 1)


def test_evaluate_and_text_check_what_they_get(trained, run_main, tmp_path):
    _, run_dir = trained
    metrics = json.loads((run_dir / "metrics.json").read_text())
    result = run_main(IMDB, "--data", "sample", "--run-dir", run_dir, "--evaluate")
    assert result.returncode == 0
    assert f"test accuracy {metrics['test']['accuracy']:.4f}" in result.stdout
    for text in ("", "?!", "qwertyuiop"):
        assert_clear_error(run_main(IMDB, "--run-dir", run_dir, "--text", text), "no word")
    result = run_main(IMDB, "--run-dir", tmp_path, "--text", "good")
    assert_clear_error(result, "does not exist", "train first")
    shutil.copytree(run_dir, tmp_path / "copy")
    (tmp_path / "copy" / "model.keras").write_bytes(b"PK")
    result = run_main(IMDB, "--data", "sample", "--run-dir", tmp_path / "copy", "--evaluate")
    assert_clear_error(result, "cannot be loaded")
    with tarfile.open(REVIEWS) as packed:
        packed.extractall(tmp_path, filter="data")
    for file in (tmp_path / "aclImdb" / "train" / "pos").iterdir():
        file.write_text("other words " * 20)
    result = run_main(IMDB, "--data", tmp_path / "aclImdb", "--run-dir", run_dir, "--evaluate")
    assert_clear_error(result, "trained on other reviews")


@pytest.mark.slow
def test_killed_training_goes_on(run_script, tmp_path):
    """kill -9 in mid-training; the same command goes on from the last finished epoch."""
    run_dir = tmp_path / "run"
    arguments = ("--data", "sample", "--epochs", "15", "--run-dir", str(run_dir))
    done = kill_in_training(IMDB, arguments, run_dir / "backup", after_epoch=3)
    assert not (run_dir / "text_model.keras").exists()

    result = run_script(IMDB, *arguments)
    assert result.returncode == 0, result.stderr
    assert f"after epoch {done}." in result.stdout
    assert f"Epoch {done + 1}/15" in result.stdout and f"Epoch {done}/15" not in result.stdout
    history = pd.read_csv(run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    assert list(history["epoch"]) == list(range(15))
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["seconds"] is None and metrics["epochs"] == 15


@pytest.mark.slow
def test_jax_backend(run_script, tmp_path):
    """Training on word ids works there; the model of strings is TensorFlow's alone."""
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    result = run_script(
        IMDB,
        "--data", "sample", "--epochs", 2, "--run-dir", tmp_path / "run",
        env={"KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["versions"]["backend"] == "jax"
    assert not (tmp_path / "run" / "text_model.keras").exists()
    code = "import lstm_imdb as s; print(s.texts_to_ids(s.build_vectorizer(['café']), ['Café!']))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "chapter10",
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "[array([2], dtype=int32)]" in result.stdout, result.stderr


@pytest.mark.slow
def test_real_reviews(imdb, real_data_dir):
    data = imdb.load_data(source=real_data_dir / "aclImdb")
    assert [len(data[f"{part}_y"]) for part in PARTS] == [20_000, 5_000, 25_000]
    assert len(data["vocabulary"]) == 19_998 and data["test_y"].mean() == 0.5
    assert max(map(len, data["train_X"])) > 2300


# --- newsgroups -------------------------------------------------------------------------------


def test_shared_functions_are_the_same_in_every_script():
    """Each script stands alone, so they repeat functions; a mend in one must reach all."""
    scripts = [load_script(script) for script in (CNN, GLOVE, LSTM, IMDB, WORDS, VECTORIZE)]
    scripts.append(load_script(WORD2VEC))
    newsgroups = ["load_data", "read_files", "decode", "strip_header", "train_val_test_split"]
    newsgroups += ["tokenize_text", "build_vectorizer", "build_text_model", "interrupted_run"]
    newsgroups += ["create_callbacks", "finished_epochs", "load_best_model", "train", "describe"]
    newsgroups += ["fingerprint", "plot_history", "fit_baseline", "out_of_vocabulary"]

    def same(name, group):
        bodies = {inspect.getsource(getattr(script, name)) for script in group}
        assert len(bodies) == 1, name

    for name in newsgroups:
        same(name, scripts[:3])
    same("TrimmedBatches", scripts[:2])
    for name in ("finished_epochs", "interrupted_run"):
        same(name, scripts[:4])
    same("load_word_vectors", [scripts[1], scripts[4]])
    same("read_files", [scripts[3], scripts[5], scripts[6]])
    same("tokenize", scripts[5:])


def test_cnn_is_the_books(cnn, glove):
    model = cnn.build_model(sequence_length=1000)
    counts = {layer.name: layer.count_params() for layer in model.layers if layer.weights}
    convolutions = [5 * size * 128 + 128 for size in (100, 128, 128)]
    assert list(counts.values()) == [2_000_000, *convolutions, 128 * 128 + 128, 128 * 20 + 20]
    assert model.get_layer("conv_3").output.shape == (None, 35, 128)  # the book's 35 x 128
    matrix = np.random.default_rng(0).normal(size=(20_000, 50)).astype("float32")
    for fine_tune in (False, True):
        model = glove.build_model(matrix, fine_tune)
        embedding = model.get_layer("embedding")
        assert np.array_equal(embedding.get_weights()[0], matrix)
        assert embedding.trainable == fine_tune and model.output_shape == (None, 20)


def test_trimmed_padding_changes_no_result(cnn):
    """Of texts of every length: as much comes out as with 1,000 words each, and every one once."""
    rng = np.random.default_rng(0)
    lengths = [0, 1, 5, 24, 25, 26, 99, 125, 126, 127, 250, 651, 652, 800, 826, 827, 999, 1000]
    X = np.zeros((len(lengths), 1000), dtype="int32")
    for row, length in zip(X, lengths, strict=True):
        row[:length] = rng.integers(1, 50, length)
    model = cnn.build_model(vocab_size=50, embedding_dim=8)
    # Strong signals from every place, padding too, so that a lost window would show.
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    features = keras.Model(model.input, model.get_layer("global_pool").output)
    expected = np.asarray(features(X))
    batches = cnn.TrimmedBatches(X, np.arange(len(X)), batch_size=1)
    shapes = set()
    for trimmed, rows in (batches[i] for i in range(len(batches))):
        shapes.add(trimmed.shape[1])
        found = np.asarray(features(trimmed))
        np.testing.assert_allclose(found, expected[rows], rtol=1e-4, atol=1e-4)
    assert shapes == {200, 300, 400, 500, 900, 1000}
    shuffled = cnn.TrimmedBatches(X, np.arange(len(X)), batch_size=4, seed=1)
    rows = np.concatenate([shuffled[i][1] for i in range(len(shuffled))])
    assert sorted(rows) == list(range(len(X)))


def test_split_and_vocabulary_know_nothing_of_the_test_texts(cnn):
    data = cnn.train_val_test_split(cnn.load_data("sample"))
    assert [len(data[f"{part}_y"]) for part in PARTS] == [480, 60, 60]
    for part, count in zip(PARTS, (24, 3, 3), strict=True):
        assert set(np.bincount(data[f"{part}_y"])) == {count}
    data["test_texts"][0] = "zzzzunseen " * 5000 + "the"
    data["val_texts"][0] = ""
    data = cnn.tokenize_text(data, vocab_size=100, sequence_length=20)
    assert "zzzzunseen" not in data["vocabulary"] and len(data["vocabulary"]) == 98
    assert data["test_X"][0].tolist() == [1] * 20 and not data["val_X"][0].any()
    assert data["train_X"].shape == (480, 20) and data["train_X"].max() == 99
    first = cnn.clean_text(data["train_texts"][:1]).numpy()[0].decode().split()[:20]
    words = ["", "[UNK]", *data["vocabulary"]]
    for word, number in zip(first, data["train_X"][0], strict=False):
        assert words[number] == word or (number == 1 and word not in words)
    assert 0 < cnn.out_of_vocabulary(data) < 1


def test_rows_of_the_matrix_belong_to_the_words(glove):
    index = {"cat": np.array([1, 2], "float32"), "dog": np.array([3, 4], "float32")}
    matrix = glove.embedding_index_to_matrix(index, ["the", "dog", "cat"])
    # A small vocabulary: two rows more than words, where the book's matrix is too short.
    assert matrix.tolist() == [[0, 0], [0, 0], [0, 0], [3, 4], [1, 2]]
    data = {"test_X": np.array([[2, 3, 1, 0]])}
    coverage = glove.measure_coverage(data, matrix)
    assert coverage["vocabulary_without_vector"] == pytest.approx(1 / 3)
    assert coverage["test_words_without_vector"] == pytest.approx(2 / 3)  # "the" and an unknown


@pytest.mark.slow
def test_cnn_from_the_command_line(run_main, cnn, monkeypatch, tmp_path):
    """Training, scoring a text, scoring again; 160 words a post instead of 1,000, for speed."""
    tokenize = cnn.tokenize_text
    monkeypatch.setattr(cnn, "tokenize_text", lambda data: tokenize(data, sequence_length=160))
    run_dir = tmp_path / "run"
    arguments = ("--data", "sample", "--run-dir", run_dir)
    result = run_main(CNN, *arguments, "--epochs", 10, "--batch-size", 16, "--embedding-dim", 50)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.2  # chance: 0.05
    assert metrics["baselines"]["tfidf_logistic_regression_accuracy"] > 0.8
    assert "better" in result.stdout  # the baseline wins, and the script says so
    again = run_main(CNN, *arguments, "--evaluate")
    assert f"test accuracy {metrics['test']['accuracy']:.4f}" in again.stdout
    text = cnn.load_data("sample")["texts"][0]
    scored = run_main(CNN, "--run-dir", run_dir, "--text", text)
    assert scored.returncode == 0 and len(scored.stdout.splitlines()) == 4
    assert_clear_error(run_main(CNN, "--run-dir", run_dir, "--text", "?!"), "no word")

    # In a fresh process the strings give the probabilities that the ids give here.
    data = tokenize(cnn.train_val_test_split(cnn.load_data("sample")), sequence_length=160)
    model = keras.models.load_model(run_dir / "model.keras")
    expected = np.asarray(model(data["test_X"][:20]))
    (tmp_path / "texts.json").write_text(json.dumps([*data["test_texts"][:20], ""]))
    program = (
        "import json, sys, keras, numpy as np; sys.path.insert(0, sys.argv[1]); "
        "import lstm_newsgroups; model = keras.models.load_model(sys.argv[2]); "
        "texts = np.array(json.load(open(sys.argv[3])), dtype=object); "
        "np.save(sys.argv[4], model(keras.ops.convert_to_tensor(texts)))"
    )
    paths = [ROOT / "chapter10", run_dir / "text_model.keras", tmp_path / "texts.json"]
    command = [sys.executable, "-c", program, *map(str, [*paths, tmp_path / "found.npy"])]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found[:20], expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)

    other = make_posts(tmp_path / "other", ["a", "b"])
    result = run_main(CNN, "--data", other, "--run-dir", run_dir, "--evaluate")
    assert_clear_error(result, "trained on other texts")


@pytest.mark.slow
def test_frozen_vectors_stay_and_fine_tuned_ones_move(run_main, glove, monkeypatch, tmp_path):
    tokenize = glove.tokenize_text
    monkeypatch.setattr(glove, "tokenize_text", lambda data: tokenize(data, sequence_length=160))
    runs = {"frozen": [], "tuned": ["--fine-tune"]}
    for name, switches in runs.items():
        result = run_main(
            GLOVE, "--data", "sample", "--epochs", 4, "--batch-size", 16, *switches,
            "--run-dir", tmp_path / name,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert "glove.sample.50d.txt" in result.stdout and "have no vector" in result.stdout
    data = tokenize(glove.train_val_test_split(glove.load_data("sample")), sequence_length=160)
    matrix = glove.embedding_index_to_matrix(glove.load_word_vectors(VECTORS), data["vocabulary"])
    for name in runs:
        model = keras.models.load_model(tmp_path / name / "model.keras")
        weights = model.get_layer("embedding").get_weights()[0]
        assert np.array_equal(weights, matrix) == (name == "frozen")
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        assert metrics["test"]["accuracy"] > 0.15 and metrics["embedding_dim"] == 50
        assert 0 <= metrics["coverage"]["test_words_without_vector"] < 0.2
    compared = run_main(
        GLOVE, "--compare", tmp_path / "frozen", tmp_path / "tuned", "--run-dir", tmp_path / "c"
    )
    assert compared.returncode == 0, compared.stderr
    assert "tuned is ahead of frozen on validation data in" in compared.stdout
    assert (tmp_path / "c" / "comparison.png").stat().st_size > 5000
    nothing = run_main(GLOVE, "--compare", tmp_path, "--run-dir", tmp_path / "d")
    assert_clear_error(nothing, "holds no finished run")


def test_lstm_on_newsgroups_runs(run_main, tmp_path):
    result = run_main(
        LSTM, "--data", "sample", "--epochs", 2, "--max-length", 40, "--run-dir", tmp_path
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["max_length"] == 40 and len(metrics["versions"]) == 4
    model = keras.models.load_model(tmp_path / "model.keras")
    ids = np.array([[5, 6] + [0] * 38], dtype="int32")
    front = np.roll(ids, 38, axis=1)  # masked padding: where it stands does not matter
    np.testing.assert_allclose(np.asarray(model(ids)), np.asarray(model(front)), atol=1e-6)


@pytest.mark.slow
def test_real_newsgroups(cnn, real_data_dir):
    data = cnn.load_data(real_data_dir / "20_newsgroup")
    assert len(data["texts"]) == 19_997 and len(data["class_names"]) == 20
    split = cnn.train_val_test_split(data)
    assert [len(split[f"{part}_y"]) for part in PARTS] == [15_997, 2_000, 2_000]


# --- figures ----------------------------------------------------------------------------------


def test_readme_gives_the_figures_of_the_kept_results():
    folder = ROOT / "chapter10"
    readme = (folder / "README.md").read_text()
    for path in (folder / "results").iterdir():
        metrics = json.loads(path.read_text())
        assert "/" not in metrics["data"], "a machine's path"
        if "test" in metrics:
            assert f"{metrics['test']['accuracy']:.3f}" in readme, path.name
        for name, accuracy in metrics.get("baselines", {}).items():
            assert f"{accuracy:.3f}" in readme, (path.name, name)
