"""Translate with a network that a script of this chapter has trained, and score its translations.

Book: chapter 11, "Inference" and "Example translations".

    python chapter11/infer_char_seq2seq.py runs/train_char_seq2seq            # the test sentences
    python chapter11/infer_char_seq2seq.py runs/train_transformer_seq2seq "Go on." "I am tired."
    python chapter11/infer_char_seq2seq.py runs/train_transformer_seq2seq -   # what is typed

The network gets its own characters (or pieces) as input, one after the other, until it writes the
end. The test sentences, in the run's folder, are none that it was trained on, nor share a
translation with one. What to look for: is it ahead of looking up the nearest training sentence?
"""

import argparse
import json
import re
import sys
import unicodedata
from functools import partial
from itertools import zip_longest
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
    English; it reads all characters so far.
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
    """Add the numbers of the input's characters, {str: int}, and the target's, {int: str}."""
    data["input_token_index"] = {token: i for i, token in enumerate(data["input_tokens"], start=1)}
    data["reverse_target_token_index"] = dict(enumerate(["", *data["target_tokens"]]))
    return data


def decode_sequence(input_seq, data, encoder_model, decoder_model):
    """Translations, n strings, of English sentences of one length, (n, length), as numbers."""
    start, end = (data["target_tokens"].index(token) + 1 for token in (START, END))
    states = keras.tree.flatten(encoder_model.predict_on_batch(input_seq))
    texts = np.full((len(input_seq), 1), start)
    longest = 2 * input_seq.shape[1] + 50  # one that never ends is cut off
    step = decoder_model.predict_on_batch
    if len(decoder_model.outputs) == 1:  # each length of what it reads would be compiled anew
        step = partial(decoder_model, training=False)
    while texts.shape[1] < longest and not (texts == end).any(axis=1).all():
        last = texts[:, -1:] if len(decoder_model.outputs) > 1 else texts
        outputs = keras.tree.flatten(step([last, *states]))
        probabilities, *new_states = map(keras.ops.convert_to_numpy, outputs)
        states[: len(new_states)] = new_states
        texts = np.column_stack([texts, probabilities[:, -1].argmax(axis=-1)])
    index = data["reverse_target_token_index"]
    return ["".join(index[i] for i in text).split(END)[0].strip() for text in texts]


def translate(texts, data, encoder_model, decoder_model):
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
            decoded = decode_sequence(input_seq, data, encoder_model, decoder_model)
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


def score_translations(translations, references):
    """BLEU with a 95 % interval by bootstrap, chrF, the share that equals a reference: per cent."""
    columns = list(zip_longest(*references))  # None where a sentence has fewer
    # BLEU counts words; where no spaces part them, as in Chinese or Thai, it counts characters.
    spaces = np.mean([" " in text for texts in references for text in texts])
    tokenize = "13a" if spaces > 0.25 else "char"
    metric = sacrebleu.BLEU(tokenize=tokenize)
    bleu = metric.corpus_score(translations, columns, n_bootstrap=1000)
    signature = str(metric.get_signature())
    interval = json.loads(bleu.format(signature=signature, is_json=True)).get("confidence_var", 0.0)
    exact = [text in right for text, right in zip(translations, references, strict=True)]
    return {
        "bleu": bleu.score,
        "bleu_interval": interval,
        "chrf": sacrebleu.corpus_chrf(translations, columns).score,
        "exact_match": 100 * float(np.mean(exact)),
        "tokenizer": tokenize,
    }


def report(run_dir, data, models):
    """Translate and score the run's test sentences, and by looking up; both are written there."""
    pairs = pd.read_csv(run_dir / "pairs.csv", keep_default_na=False)
    test = pairs[pairs["part"] == "test"].groupby("english", sort=False)["french"].agg(list)
    test = test.rename("references").reset_index()
    test["translation"] = translate(test["english"], data, *models)
    test["nearest"] = fit_baseline(pairs[pairs["part"] == "train"], test["english"])
    for row in test.sample(min(10, len(test)), random_state=0).itertuples():
        print(f"-\nInput sentence:      {row.english}\nCorrect translation: {row.references[0]}")
        print(f"Decoded sentence:    {row.translation}")
    references = test["references"].tolist()
    translated = score_translations(test["translation"].tolist(), references)
    nearest = score_translations(test["nearest"].tolist(), references)
    print(f"-\n{len(test)} test sentences")
    table = pd.DataFrame({"this network": translated, "looking up the nearest": nearest})
    print(table.T.to_string(float_format="{:.2f}".format))
    scores = {"test": translated | {"sentences": len(test)}}
    scores["baselines"] = {f"nearest_{name}": score for name, score in nearest.items()}
    test.to_csv(run_dir / "translations.csv", index=False)
    (run_dir / "scores.json").write_text(json.dumps(scores, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, help="of a finished training")
    parser.add_argument("sentences", nargs="*", help='English; "-": line by line, as typed')
    args = parser.parse_args()
    try:
        data = create_reverse_indices(json.loads((args.run_dir / "settings.json").read_text()))
        _, *models = load_models(args.run_dir)
        if not args.sentences:
            return report(args.run_dir, data, models)
    except Exception as error:  # pandas, zlib, h5py and Keras raise a dozen kinds
        sys.exit(f"error: {args.run_dir}: {' '.join(str(error).split())[:500]}")
    for sentence in sys.stdin if args.sentences == ["-"] else args.sentences:
        print(*translate([sentence], data, *models), flush=True)


if __name__ == "__main__":
    main()
