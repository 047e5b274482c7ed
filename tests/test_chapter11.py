"""Chapter 11: sentence pairs, one-hot inside the network, decoding, attention, the round trip."""

import itertools
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_clear_error, kill_in_training, load_script, run_python
from PIL import Image

TRAIN = "chapter11/train_char_seq2seq.py"
INFER = "chapter11/infer_char_seq2seq.py"
ATTENTION = "chapter11/train_attention_seq2seq.py"
SAMPLE = ROOT / "data" / "samples" / "fra.txt"
PARTS = ("train", "val", "test")
NAMES = ("train_char_seq2seq", "infer_char_seq2seq", "train_attention_seq2seq")
SMALL = ("--data", "sample", "--num-samples", "400", "--batch-size", "16")


@pytest.fixture(scope="module")
def chapter():
    """The three scripts, which find each other as if started from the command line."""
    folder = str(ROOT / "chapter11")
    sys.path.insert(0, folder)
    try:
        import infer_char_seq2seq
        import train_attention_seq2seq
        import train_char_seq2seq

        yield SimpleNamespace(
            train=train_char_seq2seq, infer=infer_char_seq2seq, attention=train_attention_seq2seq
        )
    finally:
        sys.path.remove(folder)
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def train(chapter):
    return chapter.train


@pytest.fixture(scope="module")
def infer(chapter):
    return chapter.infer


@pytest.fixture(scope="module")
def sample(train):
    return train.one_hot_vectorize(train.load_data("sample", 300))


@pytest.fixture
def run_main(chapter, monkeypatch, capsys):
    """`main()` of a script in this process: what a test of messages needs, without a start-up."""

    def run(script, *args):
        monkeypatch.setattr(sys, "argv", [script, *map(str, args)])
        capsys.readouterr()
        try:
            getattr(chapter, script).main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory, slow_training):
    """A training run from its own folder as a user would start it: (process, run directory)."""
    run_dir = tmp_path_factory.mktemp("char") / "char_seq2seq"
    arguments = [*SMALL, "--epochs", 5, "--run-dir", run_dir]
    return run_python(TRAIN, *arguments, cwd=ROOT / "chapter11"), run_dir


def random_models(build, sizes, seed=0, units=12):
    """Small networks with large random weights: no two characters about equally probable."""
    import keras

    keras.utils.set_random_seed(seed)
    models = build(units, *sizes)
    rng = np.random.default_rng(seed)
    for weight in models[0].trainable_weights:
        weight.assign(rng.normal(0, 1.2, weight.shape))
    bias = models[0].get_layer("softmax_output").bias
    bias.assign(np.asarray(bias) + 1.5 * np.eye(sizes[1])[1])  # some texts end early: 1 is END
    return models


# --- pairs ------------------------------------------------------------------------------------


def test_reads_two_and_three_columns_windows_lines_and_repeats_the_same(train, tmp_path):
    expected = train.load_data("sample", 200)
    pairs = [line.split("\t")[:2] for line in SAMPLE.read_text("utf-8").splitlines()[:230]]
    text = "".join(f"{a}\t{b}\r\n" for pair in pairs for a, b in [pair, pair]) + "\r\n"
    (tmp_path / "mine.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())  # with a byte-order mark
    data = train.load_data(tmp_path / "mine.txt", 200)
    assert data["input_texts"][:2] == ["Go!", "Go!"] and len(data["input_texts"]) == 200
    for key in ("input_texts", "target_texts", "target_chars", "num_decoder_tokens"):
        assert data[key] == expected[key]
    assert data["target_texts"][0] == "\tVa\u202f!\n" and "\ufeff" not in data["input_chars"]
    assert len(set(zip(data["input_texts"], data["target_texts"], strict=True))) == 200
    assert data["max_decoder_seq_length"] == max(map(len, data["target_texts"]))


def test_letters_are_composed(train, tmp_path):
    """An e with a separate accent is the same character as an é."""
    lines = [f"word {i}\tme\u0301tier {i}\n" for i in range(12)]
    (tmp_path / "nfd.txt").write_text("".join(lines), encoding="utf-8")
    assert "é" in train.load_data(tmp_path / "nfd.txt")["target_chars"]


def test_no_english_sentence_is_in_two_parts(train):
    data = train.load_data("sample")
    rows = np.concatenate([data[part] for part in PARTS])
    assert sorted(rows) == list(range(len(data["input_texts"])))
    english = [{data["input_texts"][row] for row in data[part]} for part in PARTS]
    for a, b in itertools.combinations(english, 2):
        assert not a & b
    total = len(set.union(*english))
    assert [len(part) for part in english[1:]] == [total // 10] * 2
    assert len(data["train"]) > len(english[0])  # there are sentences with several translations
    # Drawn at random: the file is sorted by length, so the longest must not all be in one part.
    assert max(map(len, english[0])) >= 25 and min(map(len, english[2])) <= 8
    again = train.load_data("sample")
    assert all(np.array_equal(data[part], again[part]) for part in PARTS)


def test_real_pairs(train, real_data_dir):
    data = train.load_data(real_data_dir / "fra.txt")
    assert len(data["input_texts"]) == 50_000 and data["max_encoder_seq_length"] == 23
    english = [{data["input_texts"][row] for row in data[part]} for part in PARTS]
    assert not english[0] & english[1] and not english[0] & english[2]
    assert [len(part) for part in english[1:]] == [3207, 3207]


# --- one-hot ----------------------------------------------------------------------------------


def test_ids_are_views_and_equal_the_books_one_hot_arrays(train, sample):
    import keras

    target_in, target_out = sample["decoder_input_data"], sample["decoder_target_data"]
    assert target_in.dtype == np.uint8 and target_in.base is target_out.base
    assert np.array_equal(target_in[:, 1:], target_out[:, :-1])
    size, row = sample["num_encoder_tokens"], 7
    text = sample["input_texts"][row]
    book = np.zeros((sample["max_encoder_seq_length"], size), "float32")
    for t, char in enumerate(text):
        book[t, sample["input_token_index"][char]] = 1
    ids = keras.Input((None,), dtype="int32")
    one_hot = keras.Model(ids, train.one_hot(ids, size, "x"))
    ours = keras.ops.convert_to_numpy(one_hot(sample["encoder_input_data"][row : row + 1]))[0]
    assert np.array_equal(ours, book) and not one_hot.trainable_weights
    assert ours[len(text) :].sum() == 0 and len(text) < len(ours)


def test_more_than_255_characters_take_two_bytes(train):
    index = {chr(0x4E00 + i): i for i in range(400)}
    ids = train.to_ids([chr(0x4E00 + 399), chr(0x4E00) * 2], index)
    assert ids.dtype == np.uint16 and ids.tolist() == [[399, 400], [0, 0]]


def test_batches_hold_every_pair_once_and_little_padding(train, sample):
    seen = []
    for (english, french), target, weight in train.make_batches(sample, "train", 16, seed=3):
        lengths = (weight.numpy() > 0).sum(axis=1)
        assert french.shape == target.shape and target.shape[1] - lengths.max() < 8
        for e, f, length in zip(english.numpy(), french.numpy(), lengths, strict=True):
            e = e[e != sample["num_encoder_tokens"]]
            seen.append((tuple(e), tuple(f[1:length])))
        assert target.numpy().max() < sample["num_decoder_tokens"]  # padding is a valid class
    index = sample["input_token_index"], sample["target_token_index"]
    expected = [
        (
            tuple(index[0][c] for c in sample["input_texts"][row]),
            tuple(index[1][c] for c in sample["target_texts"][row][1:-1]),
        )
        for row in sample["train"]
    ]
    assert sorted(seen) == sorted(expected)


def test_batches_are_drawn_anew_each_epoch(train, sample):
    batches = train.make_batches(sample, "train", 16, seed=3)
    first, second = ([x[1].numpy() for x in batches] for _ in range(2))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    calm = train.make_batches(sample, "val", 16)
    first, second = ([x[1].numpy() for x in calm] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# --- networks ---------------------------------------------------------------------------------


def test_network_is_the_books(train):
    model, encoder, decoder = train.build_models(256, 71, 94)
    lstm = lambda inputs: 4 * 256 * (inputs + 256 + 1)  # noqa: E731
    expected = lstm(71) + lstm(94) + 257 * 94
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == expected
    for name in ("encoder_lstm", "decoder_lstm", "softmax_output"):
        assert model.get_layer(name) is (encoder if name[0] == "e" else decoder).get_layer(name)
    assert len(encoder.outputs) == 2 and len(decoder.outputs) == 3


def test_attention_adds_one_dense_layer(chapter):
    plain = chapter.train.build_models(256, 71, 94)[0].count_params()
    assert chapter.attention.build_models(256, 71, 94)[0].count_params() - plain == 513 * 256


@pytest.mark.parametrize("kind", ["train", "attention"])
def test_decoder_step_by_step_equals_the_training_network(chapter, sample, kind):
    """Also: padding behind the English sentence changes nothing."""
    sizes = sample["num_encoder_tokens"], sample["num_decoder_tokens"]
    model, encoder, decoder = random_models(getattr(chapter, kind).build_models, sizes)
    english = sample["encoder_input_data"][50:54].astype("int32")
    french = sample["decoder_input_data"][50:54, :9].astype("int32")
    at_once = np.asarray(model([english, french]))
    wider = np.pad(english, ((0, 0), (0, 5)), constant_values=sizes[0])
    state_h, state_c, *memory = [np.asarray(state) for state in encoder(wider)]
    for step in range(french.shape[1]):
        inputs = [french[:, step : step + 1], state_h, state_c, *memory]
        outputs = [np.asarray(output) for output in decoder.predict(inputs, verbose=0)]
        np.testing.assert_allclose(outputs[0][:, 0], at_once[:, step], atol=2e-5)
        state_h, state_c = outputs[1:3]


def test_loss_and_accuracy_leave_padding_out(train, sample):
    sizes = sample["num_encoder_tokens"], sample["num_decoder_tokens"]
    model = random_models(train.build_models, sizes)[0]
    rows = sample["val"]
    inputs = [
        sample[key][rows].astype("int32") for key in ("encoder_input_data", "decoder_input_data")
    ]
    probabilities, target = np.asarray(model(inputs)), sample["decoder_target_data"][rows]
    real = target != sizes[1]
    hits = (probabilities.argmax(axis=-1) == target)[real]
    chance = np.take_along_axis(
        probabilities, np.where(real, target, 0)[..., None].astype(int), axis=-1
    )[..., 0][real]
    assert real.mean() < 0.9
    for batch_size in (len(rows), 7):
        found = model.evaluate(
            train.make_batches(sample, "val", batch_size), verbose=0, return_dict=True
        )
        assert found["accuracy"] == pytest.approx(hits.mean(), abs=1e-5)
        if batch_size == len(rows):
            assert found["loss"] == pytest.approx(-np.log(chance).mean(), rel=1e-3)


# --- decoding ---------------------------------------------------------------------------------


def decode_slowly(text, data, train, encoder, decoder):
    """The book's loop: a call of the decoder for each character of one sentence."""
    state_h, state_c, *memory = encoder(train.to_ids([text], data["input_token_index"]))
    last, decoded = np.array([[data["target_token_index"]["\t"]]]), ""
    while len(decoded) < data["max_decoder_seq_length"]:
        inputs = [last, state_h, state_c, *memory]
        outputs = decoder([np.asarray(values) for values in inputs])
        last = np.asarray(outputs[0])[:, -1].argmax(axis=-1)[:, None]
        state_h, state_c = outputs[1:3]
        char = data["target_chars"][int(last[0, 0])]
        if char == "\n":
            break
        decoded += char
    return decoded.strip("\t")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "attention"])
def test_greedy_equals_predict_per_character(chapter, sample, kind):
    data = chapter.infer.create_reverse_indices(sample)
    sizes = data["num_encoder_tokens"], data["num_decoder_tokens"]
    _, encoder, decoder = random_models(getattr(chapter, kind).build_models, sizes)
    sentences = sorted(set(data["input_texts"]), key=data["input_texts"].index)[::12]
    decode = chapter.infer.compile_decoder(encoder, decoder, data)
    found = chapter.infer.translate(sentences, data, decode)
    expected = [decode_slowly(text, data, chapter.train, encoder, decoder) for text in sentences]
    assert found == expected
    assert len(set(found)) > 2 and len(set(map(len, found))) > 1  # some end sooner than others


def test_wide_beam_finds_the_best_of_all_texts(train, infer):
    """Few characters, short texts: every one of them can be tried."""
    chars = ["\t", "\n", "a", "b"]
    data = {"input_chars": ["x", "y"], "target_chars": chars, "untrained_chars": []}
    data |= {"num_encoder_tokens": 2, "num_decoder_tokens": 4, "max_decoder_seq_length": 3}
    data = infer.create_reverse_indices(data)
    for seed in range(3):
        model, encoder, decoder = random_models(train.build_models, (2, 4), seed, units=6)
        # Every text of three characters, END filling up: its mean log probability up to the end.
        best = {}
        for text in itertools.product(range(4), repeat=3):
            if 1 in text:
                text = text[: text.index(1) + 1]
            p = np.asarray(model([np.array([[0, 1]]), np.array([[0, *text[:-1]]])]))[0]
            best[text] = np.log(p[range(len(text)), text]).mean()
        best = max(best, key=best.get)
        expected = "".join(chars[i] for i in best).split("\n")[0].strip("\t")
        wide = infer.compile_decoder(encoder, decoder, data, 64)
        assert infer.translate(["xy"], data, wide) == [expected]


def test_beam_of_one_sentence_does_not_depend_on_its_neighbours(chapter, sample):
    data = chapter.infer.create_reverse_indices(sample)
    sizes = data["num_encoder_tokens"], data["num_decoder_tokens"]
    _, encoder, decoder = random_models(chapter.attention.build_models, sizes)
    decode = chapter.infer.compile_decoder(encoder, decoder, data, 4)
    sentences = data["input_texts"][::12]
    together = chapter.infer.translate(sentences, data, decode)
    assert together == [chapter.infer.translate([text], data, decode)[0] for text in sentences]


def test_attention_weights(chapter, sample):
    data = chapter.infer.create_reverse_indices(sample)
    sizes = data["num_encoder_tokens"], data["num_decoder_tokens"]
    _, encoder, decoder = random_models(chapter.attention.build_models, sizes)
    weights = chapter.attention.attention_weights("Go!", "Va !", encoder, decoder, data)
    assert weights.shape == (5, 3)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    padded = np.pad(chapter.train.to_ids(["Go!"], data["input_token_index"]), ((0, 0), (0, 4)),
                    constant_values=sizes[0])  # fmt: skip
    states = encoder.predict(padded, verbose=0)
    first = np.array([[data["target_token_index"]["\t"]]])
    *_, with_padding = decoder.predict([first, *states], verbose=0)
    np.testing.assert_allclose(with_padding[0, 0, :3], weights[0], atol=1e-5)
    assert with_padding[0, 0, 3:].max() < 1e-6  # nothing looks at padding


# --- scores -----------------------------------------------------------------------------------


def test_every_reference_counts(train):
    references = [["Va !", "Allez !"], ["Il fait froid ce soir."]]
    found = train.score_translations(["Allez !", "Il fait froid ce soir."], references)
    assert found["exact_match"] == 100 and found["chrf"] == pytest.approx(100)
    assert found["bleu"] == pytest.approx(100)
    worse = train.score_translations(["Allez !", "Il fait chaud ce soir."], references)
    assert worse["exact_match"] == 50 and worse["bleu"] < 70


def test_nearest_neighbour_and_bigram_baselines(train, sample):
    train_rows = sample["train"]
    known = sample["input_texts"][train_rows[40]]
    accuracy, found = train.fit_baselines(sample, [known, known.replace(".", "!")])
    of_known = [
        sample["target_texts"][row].strip() for row in train_rows
        if sample["input_texts"][row] == known
    ]  # fmt: skip
    assert found[0] in of_known and found[1]
    assert 0.2 < accuracy < 0.6


# --- bad input --------------------------------------------------------------------------------

GOOD = SAMPLE.read_bytes().splitlines(keepends=True)[:100]


def replace_line(number, line):
    return b"".join([*GOOD[: number - 1], line, *GOOD[number:]])


BAD_PAIRS = {
    "empty": (b"", ["is empty"]),
    "blank lines": (b"\n\r\n  \n", ["is empty"]),
    "one column": (replace_line(17, b"Go on.\n"), ["line 17", "one column", "tab"]),
    "spaces for tabs": (replace_line(1, b"Go on.    Va !\n"), ["line 1 ", "one column"]),
    "no translation": (replace_line(5, b"Go on.\t \n"), ["line 5", "an empty column"]),
    "Latin-1": (replace_line(33, "Enough!\tArrête !\n".encode("latin-1")), ["line 33", "UTF-8"]),
    "few": (b"".join(GOOD[:9]), ["different English sentences", "10 or more"]),
    "one sentence": (b"".join(b"Go.\tVa %d\n" % i for i in range(50)), ["1 different"]),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_bad_pairs_are_one_clear_message(run_main, tmp_path, case):
    content, words = BAD_PAIRS[case]
    (tmp_path / "bad.txt").write_bytes(content)
    result = run_main("train", "--data", tmp_path / "bad.txt", "--run-dir", tmp_path / "run")
    assert_clear_error(result, "bad.txt", *words)
    assert not (tmp_path / "run").exists()


def test_missing_pairs_and_networks(run_main, tmp_path):
    missing = ("--data", tmp_path / "no.txt", "--run-dir", tmp_path / "run")
    for script in ("train", "attention"):
        result = run_main(script, *missing)
        assert_clear_error(result, "no.txt does not exist", "fetch.py fra-eng", "--data sample")
    result = run_main("train", "--data", tmp_path, "--run-dir", tmp_path / "run")
    assert_clear_error(result, "is a folder")
    for script, extra in (("infer", ["--text", "Go."]), ("train", ["--evaluate"])):
        result = run_main(script, "--data", "sample", "--run-dir", tmp_path / "run", *extra)
        assert_clear_error(result, "does not exist", "train first")
    assert not (tmp_path / "run").exists()


# --- training, saving, translating ------------------------------------------------------------


def test_training_learns_and_reports(trained):
    process, run_dir = trained
    assert process.returncode == 0, process.stderr
    assert "Data: sample (a stand-in" in process.stdout and "Translating" in process.stdout
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["script"] == TRAIN and metrics["data"].startswith("sample")
    history = pd.read_csv(run_dir / "history.csv")
    assert metrics["epochs"] == len(history) == 5 and metrics["seconds"] > 0
    assert metrics["best_epoch"] == history["val_loss"].idxmin() + 1
    # The best epoch's network, and more than the character before tells.
    assert metrics["val"]["loss"] == pytest.approx(history["val_loss"].min(), rel=0.05)
    assert metrics["test"]["accuracy"] > metrics["baselines"]["bigram_accuracy"] + 0.05
    for key in ("bleu", "chrf", "bleu_beam", "chrf_beam", "exact_match"):
        assert 0 <= metrics["test"][key] <= 100
    assert metrics["baselines"]["nearest_neighbour_chrf"] > 30
    with Image.open(run_dir / "learning_curves.png") as picture:
        assert picture.width > 400
    table = pd.read_csv(run_dir / "translations.tsv", sep="\t", keep_default_na=False)
    assert len(table) == metrics["test"]["sentences"] and table["greedy"].str.len().max() > 3


def test_fresh_process_gives_the_same_translations(trained, run_script, tmp_path):
    _, run_dir = trained
    result = run_script(INFER, "--run-dir", run_dir, "--evaluate", "--samples", 3, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    sentences = json.loads((run_dir / "metrics.json").read_text())["test"]["sentences"]
    assert f"{sentences} of {sentences} are letter for letter" in result.stdout
    assert result.stdout.count("Input sentence:") == 3
    table = pd.read_csv(run_dir / "translations.tsv", sep="\t", keep_default_na=False)
    for line in result.stdout.splitlines():
        if line.startswith("Input sentence:"):
            assert line.split(":")[1].strip() in set(table["english"])


def test_evaluate_scores_the_saved_networks_again(trained, run_main, tmp_path):
    _, run_dir = trained
    metrics = json.loads((run_dir / "metrics.json").read_text())
    changed = metrics | {"test": {}, "seed": 7}
    (run_dir / "metrics.json").write_text(json.dumps(changed))
    result = run_main("train", *SMALL, "--run-dir", run_dir, "--evaluate")
    assert result.returncode == 0 and f"{metrics['test']['accuracy']:.4f}" in result.stdout
    renewed = json.loads((run_dir / "metrics.json").read_text())
    assert renewed["seed"] == 7 and renewed["test"]["bleu"] == metrics["test"]["bleu"]
    wrong = run_main("train", "--data", "sample", "--run-dir", run_dir, "--evaluate")
    assert_clear_error(wrong, "other pairs")
    wrong = run_main("attention", *SMALL, "--run-dir", run_dir, "--evaluate")
    assert_clear_error(wrong, "char_s2s, not attention_s2s")


def test_own_text_and_unseen_characters(trained, run_main, infer):
    _, run_dir = trained
    result = run_main("infer", "--run-dir", run_dir, "--text", "I@ eatß.", "漢字", "I eat.")
    assert result.returncode == 0 and result.stderr == ""
    assert "never seen in training: '@' 'ß'\n" in result.stdout
    assert "Nothing is left to translate." in result.stdout
    assert result.stdout.count("Input sentence:   I eat.\n") == 2
    decoded = [line for line in result.stdout.splitlines() if line.startswith("Decoded")]
    assert len(decoded) == 2 and decoded[0] == decoded[1]
    data = infer.load_characters(run_dir) | {"untrained_chars": ["G"]}
    assert infer.drop_unknown(" Goo\u0301! ", data) == ("o!", ["G", "ó"])


def test_prompt_translates_until_the_end_of_input(trained, run_main, monkeypatch):
    _, run_dir = trained
    lines = iter(["Go on.", "", "Wait!"])

    def type_in(prompt=""):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", type_in)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    result = run_main("infer", "--run-dir", run_dir, "--samples", 1, "--beam-width", 3)
    assert result.returncode == 0 and result.stdout.count("Input sentence:") == 3
    assert result.stdout.rstrip().endswith("Au revoir.")


@pytest.mark.parametrize("name", ["characters.json", "char_s2s_decoder.keras"])
def test_damaged_run(trained, run_main, tmp_path, name):
    _, run_dir = trained
    for path in run_dir.glob("char*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
    result = run_main("infer", "--run-dir", tmp_path, "--text", "Go.")
    assert_clear_error(result, name, "train again")


def test_networks_load_in_safe_mode_without_the_scripts(trained):
    """Plain Keras layers only: nothing of ours is needed to load them."""
    _, run_dir = trained
    code = (
        "import sys, keras\n"
        "for name in sys.argv[1:]: keras.models.load_model(name, safe_mode=True, compile=False)"
    )
    files = sorted(run_dir.glob("char_s2s*.keras"))
    assert len(files) == 3
    result = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_attention_script(trained, run_script, tmp_path):
    _, plain_dir = trained
    run_dir = plain_dir.parent / "attention_seq2seq"
    result = run_script(ATTENTION, *SMALL, "--epochs", 2, "--run-dir", run_dir)
    assert result.returncode == 0, result.stderr
    assert "plain" in result.stdout and "attention " in result.stdout
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["script"] == ATTENTION
    for picture in ("attention.png", "comparison.png", "learning_curves.png"):
        with Image.open(run_dir / picture) as image:
            assert image.width > 400
    result = run_script(INFER, "--run-dir", run_dir, "--evaluate", "--beam-width", 5)
    assert result.returncode == 0, result.stderr
    sentences = metrics["test"]["sentences"]
    assert f"{sentences} of {sentences} are letter for letter" in result.stdout


@pytest.mark.slow
def test_killed_training_goes_on(run_script, tmp_path):
    """kill -9 in mid-training; the same command goes on from the last finished epoch."""
    run_dir = tmp_path / "run"
    arguments = ("--data", "sample", "--num-samples", "300", "--batch-size", "16", "--epochs", "9")
    arguments += ("--run-dir", str(run_dir))
    done = kill_in_training(TRAIN, arguments, run_dir / "backup", after_epoch=3)
    before = pd.read_csv(run_dir / "history.csv")[:done]

    result = run_script(TRAIN, *arguments)
    assert result.returncode == 0, result.stderr
    assert f"after epoch {done}." in result.stdout
    assert f"Epoch {done + 1}/9" in result.stdout and f"Epoch {done}/9" not in result.stdout
    history = pd.read_csv(run_dir / "history.csv").drop_duplicates("epoch", keep="last")
    assert list(history["epoch"]) == list(range(9))
    assert history["loss"].iloc[done] < 0.9 * before["loss"].iloc[0]  # no fresh network
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["seconds"] is None and metrics["epochs"] == 9


@pytest.mark.slow
@pytest.mark.parametrize("script", [TRAIN, ATTENTION])
def test_jax_backend(run_script, tmp_path, script):
    pytest.importorskip("jax", reason="JAX is not installed (requirements-cluster.txt)")
    run_dir = tmp_path / "run"
    arguments = ("--data", "sample", "--num-samples", 300, "--epochs", 2, "--run-dir", run_dir)
    result = run_script(script, *arguments, env={"KERAS_BACKEND": "jax"})
    assert result.returncode == 0, result.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["versions"]["backend"] == "jax"
    # Trained on JAX, translated on TensorFlow: the same text but for near ties.
    result = run_script(INFER, "--run-dir", run_dir, "--evaluate")
    assert result.returncode == 0, result.stderr
    same, of = result.stdout.split(" are letter for letter")[0].splitlines()[-1].split(" of ")
    assert int(same) >= 0.9 * int(of)


@pytest.mark.slow
def test_decoding_benchmark_agrees(capsys, monkeypatch, chapter, tmp_path):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    bench = load_script("benchmarks/bench_seq2seq_decoding.py")
    monkeypatch.setattr(
        sys, "argv", ["bench", "--sentences", "2", "--turns", "1", "--run-dir", str(tmp_path)]
    )
    bench.main()
    assert "the same text for 2 of 2 sentences" in capsys.readouterr().out
