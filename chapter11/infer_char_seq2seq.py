"""Translate with a network that a script of this chapter has trained, and score its translations.

Book: chapter 11, "Inference" and "Example translations".

    python chapter11/infer_char_seq2seq.py runs/train_char_seq2seq            # the test sentences
    python chapter11/infer_char_seq2seq.py runs/train_attention_seq2seq --beam-width 5
    python chapter11/infer_char_seq2seq.py runs/train_transformer_seq2seq "Go on." "I am tired."
    python chapter11/infer_char_seq2seq.py runs/train_transformer_seq2seq -   # what is typed

The network gets its own characters (or pieces) as input, one after the other, until it writes the
end. The test sentences, in the run's folder, are none that it was trained on, nor share a
translation with one. What to look for: how far it is ahead of looking up the nearest sentence.
"""

import argparse
import json
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import sacrebleu
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

START, END = "\t", "\n"


def load_models(run_dir):
    """[the trained model, an encoder, a decoder]: the two are made of its layers, to go by steps.

    encoder: English to the states that the decoder begins with. decoder: [last character, *states]
    to [probabilities of the next, *those states that are new]. A transformer's only state is the
    English, and it needs all characters so far.
    """
    model = keras.models.load_model(run_dir / "model.keras")
    encoder_input, decoder_input = model.inputs
    layers = {layer.name: layer for layer in model.layers}
    if "decoder_lstm" not in layers:
        encoder_model = keras.Model(encoder_input, [encoder_input])
        return [model, encoder_model, keras.Model([decoder_input, encoder_input], [model.output])]
    outputs, *states = layers["encoder_lstm"].output
    memory = [outputs] if "attention" in layers else []
    encoder_model = keras.Model(encoder_input, [*states, *memory])
    states, memory = ([keras.Input(x.shape[1:]) for x in group] for group in (states, memory))
    x = layers["decoder_one_hot"](decoder_input)
    x, *new_states = layers["decoder_lstm"](x, initial_state=states)
    if memory:
        context = layers["attention"]([x, *memory])
        x = layers["combine"](layers["join"]([context, x]))
    outputs = [layers["softmax_output"](x), *new_states]
    return [model, encoder_model, keras.Model([decoder_input, *states, *memory], outputs)]


def create_reverse_indices(data):
    """Add the numbers of the input's characters, {str: int}, and the target's {int: str}."""
    data["input_token_index"] = {token: i for i, token in enumerate(data["input_tokens"], start=1)}
    data["reverse_target_token_index"] = dict(enumerate(["", *data["target_tokens"]]))
    return data


def decode_sequence(input_seq, data, encoder_model, decoder_model, beam_width=1, longest=100):
    """Translations, n strings, of English sentences of one length, (n, length), in numbers.

    At each step every sentence has `beam_width` beginnings; of all their continuations by one
    character the most probable go on. With 1 that is the book's way, the most probable character.
    """
    n, end = len(input_seq), data["target_tokens"].index(END) + 1
    states = keras.tree.flatten(encoder_model.predict_on_batch(input_seq))  # of one or more
    states = [np.repeat(state, beam_width, axis=0) for state in states]
    texts = np.full((n * beam_width, 1), data["target_tokens"].index(START) + 1)
    scores = np.tile(np.where(np.arange(beam_width), -1e9, 0), n)  # the first beams are all alike
    while texts.shape[1] <= longest and (texts[:, -1] != end).any():
        last = texts[:, -1:] if len(decoder_model.outputs) > 1 else texts
        outputs = keras.tree.flatten(decoder_model.predict_on_batch([last, *states]))
        probabilities, *new_states = outputs
        states[: len(new_states)] = new_states
        chances = np.log(np.maximum(probabilities[:, -1], 1e-30))
        finished = texts[:, -1] == end  # goes on with the end, at no cost
        chances[finished] = -1e9
        chances[finished, end] = 0
        chances = (scores[:, None] + chances).reshape(n, -1)
        best = np.argpartition(-chances, beam_width - 1)[:, :beam_width]
        scores = np.take_along_axis(chances, best, axis=1).ravel()
        sentences, tokens = np.divmod(best, probabilities.shape[-1])
        rows = (sentences + np.arange(n)[:, None] * beam_width).ravel()
        states = [x[rows] for x in states]
        texts = np.column_stack([texts[rows], tokens.ravel()])
    means = scores / (texts != end).sum(axis=1)  # the sum would favour short ones
    texts = texts.reshape(n, beam_width, -1)[np.arange(n), means.reshape(n, -1).argmax(axis=1)]
    index = data["reverse_target_token_index"]
    return ["".join(index[i] for i in text).split(END)[0].strip() for text in texts]


def translate(texts, data, encoder_model, decoder_model, beam_width=1):
    """Translations of any English; characters that were in no training sentence are left out."""
    tokens = sorted(data["input_tokens"], key=len, reverse=True)  # the longest that fits
    pattern = re.compile("|".join(map(re.escape, tokens)))
    texts = [pattern.findall(unicodedata.normalize("NFC", text.strip())) for text in texts]
    ids = [[data["input_token_index"][token] for token in text] for text in texts]
    translations, lengths = [""] * len(ids), np.array([len(row) for row in ids])
    for length in sorted(set(lengths) - {0}):  # of one length: no padding
        rows = np.flatnonzero(lengths == length)
        for chunk in np.split(rows, range(128, len(rows), 128)):
            input_seq = np.array([ids[row] for row in chunk])
            decoded = decode_sequence(input_seq, data, encoder_model, decoder_model, beam_width)
            for row, text in zip(chunk, decoded, strict=True):
                translations[row] = text
    return translations


def fit_baseline(train, sentences):
    """The French of the training sentence that has the most similar groups of letters."""
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), lowercase=False)
    known = vectorizer.fit_transform(train["english"])
    neighbours = NearestNeighbors(n_neighbors=1, metric="cosine").fit(known)
    nearest = neighbours.kneighbors(vectorizer.transform(sentences), return_distance=False)
    return train["french"].iloc[nearest[:, 0]].tolist()


def choose_tokenizer(texts):
    """sacreBLEU's way to count words, by the script: words where spaces part them."""
    names = [unicodedata.name(char, "?") for char in "".join(texts) if char.isalpha()]
    scripts = Counter(name.split()[0] for name in names)
    no_spaces = ("HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
    if sum(scripts[name] for name in no_spaces) > 0.1 * len(names):
        return "char"
    return "zh" if scripts["CJK"] > 0.5 * len(names) else "13a"


def score_translations(translations, references):
    """BLEU, chrF and the share that equals a reference, in per cent; of each, all references."""
    most = max(map(len, references))
    columns = [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]
    tokenize = choose_tokenizer(sum(references, []))
    exact = [text in right for text, right in zip(translations, references, strict=True)]
    return {
        "bleu": sacrebleu.corpus_bleu(translations, columns, tokenize=tokenize).score,
        "chrf": sacrebleu.corpus_chrf(translations, columns).score,
        "exact_match": 100 * float(np.mean(exact)),
        "bleu_tokenizer": tokenize,
    }


def report(run_dir, data, models, beam_width):
    """Translate and score the run's test sentences, and by looking up; write both there."""
    pairs = pd.read_csv(run_dir / "pairs.csv", keep_default_na=False)
    parts = dict(iter(pairs.groupby("part")))
    test = parts["test"].groupby("english", sort=False)["french"].agg(list).reset_index()
    test["translation"] = translate(test["english"], data, *models, beam_width)
    test["nearest"] = fit_baseline(parts["train"], test["english"])
    for row in test.sample(min(10, len(test)), random_state=0).itertuples():
        print(f"-\nInput sentence:      {row.english}\nCorrect translation: {row.french[0]}")
        print(f"Decoded sentence:    {row.translation}")
    scores = {"test": {"sentences": len(test)}, "beam_width": beam_width}
    scores["test"] |= score_translations(test["translation"].tolist(), test["french"].tolist())
    nearest = score_translations(test["nearest"].tolist(), test["french"].tolist())
    scores["baselines"] = {f"nearest_{name}": score for name, score in nearest.items()}
    print(f"-\n{len(test)} test sentences, tokenizer {nearest['bleu_tokenizer']}")
    for of, name in ((scores["test"], "this network"), (nearest, "looking up the nearest")):
        scored = f"BLEU {of['bleu']:5.2f}, chrF {of['chrf']:5.2f}, exact {of['exact_match']:4.1f} %"
        print(f"{scored}: {name}")
    suffix = f"_beam{beam_width}" if beam_width > 1 else ""
    test.to_csv(run_dir / f"translations{suffix}.csv", index=False)
    (run_dir / f"scores{suffix}.json").write_text(json.dumps(scores, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, help="of a finished training")
    parser.add_argument("sentences", nargs="*", help='English; "-": line by line, as typed')
    parser.add_argument("--beam-width", type=int, default=1, help="default: 1, as in the book")
    args = parser.parse_args()
    if args.beam_width < 1:
        parser.error("--beam-width begins at 1")
    try:
        data = create_reverse_indices(json.loads((args.run_dir / "settings.json").read_text()))
        _, *models = load_models(args.run_dir)
        if not args.sentences:
            return report(args.run_dir, data, models, args.beam_width)
    except Exception as error:  # pandas, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.run_dir}: {' '.join(str(error).split())}")
    for sentence in sys.stdin if args.sentences == ["-"] else args.sentences:
        print(translate([sentence], data, *models, args.beam_width)[0], flush=True)


if __name__ == "__main__":
    main()
