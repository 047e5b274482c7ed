"""The same translation task with attention: the decoder looks back at every English character.

Book: chapter 11, "Attention", which describes it and has no listing: Keras had no such layer then.

    python chapter11/train_char_seq2seq.py                         # first, to compare with
    python chapter11/train_attention_seq2seq.py
    python chapter11/train_attention_seq2seq.py --data sample
    python chapter11/infer_char_seq2seq.py --run-dir runs/chapter11/attention_seq2seq

In train_char_seq2seq.py a sentence must pass through two vectors of 256 numbers. Here the encoder
hands over its output at every character as well. The decoder compares its own output with each of
them (a dot product: Luong et al., 2015), and the softmax of these scores says how much of each goes
into the next character. Data, split, training and scores are those of train_char_seq2seq.py.

What to look for: attention.png, in which the weights run from the beginning of the English sentence
to its end, and jump where the two languages order their words differently; and in comparison.png
how much sooner the same loss is reached. On the first 50,000 pairs of fra.txt, seed 1, 15 epochs on
one core of a CPU (26 minutes): BLEU 25.3 on the test set, 29.8 with beam search, where the plain
network has 10.1 and looking up the nearest sentence 21.3.
"""

import json

import keras
from infer_char_seq2seq import compile_decoder, create_reverse_indices, translate
from keras import layers
from train_char_seq2seq import (
    compile_model,
    one_hot,
    parse_arguments,
    pd,
    plt,
    run,
    save_figure,
    test_sentences,
    to_ids,
)

SCRIPT = "chapter11/train_attention_seq2seq.py"
EXAMPLES = ("I don't speak French.", "Where is my old car?")  # drawn where the data knows them


def build_models(lstm_units, num_encoder_tokens, num_decoder_tokens, learning_rate=0.005):
    """As in train_char_seq2seq.py, with attention between the decoder's LSTM and its softmax.

    Returns:
        model: (English, French so far) to the next character, for every position at once.
        encoder_model: English to the LSTM's two states and its output at each character.
        decoder_model: (characters, two states, encoder's outputs) to (probabilities, new states,
        attention weights (n, French, English)).
    """
    encoder_input = keras.Input((None,), dtype="int32", name="encoder_input")
    x = one_hot(encoder_input, num_encoder_tokens, "encoder_one_hot")
    x = layers.Masking(name="encoder_mask")(x)
    # Zeros at padding, so that the Masking layer below sees where the sentence ends.
    encoder_lstm = layers.LSTM(
        lstm_units,
        return_sequences=True,
        return_state=True,
        zero_output_for_mask=True,
        name="encoder_lstm",
    )
    encoder_outputs, state_h, state_c = encoder_lstm(x)

    decoder_input = keras.Input((None,), dtype="int32", name="decoder_input")
    decoder_chars = one_hot(decoder_input, num_decoder_tokens, "decoder_one_hot")
    decoder_lstm = layers.LSTM(
        lstm_units, return_sequences=True, return_state=True, name="decoder_lstm"
    )
    memory_mask = layers.Masking(name="memory_mask")
    attention = layers.Attention(name="attention")
    join = layers.Concatenate(name="join")
    combine = layers.Dense(lstm_units, activation="tanh", name="combine")
    decoder_dense = layers.Dense(num_decoder_tokens, activation="softmax", name="softmax_output")

    def decode(states, memory):
        x, state_h, state_c = decoder_lstm(decoder_chars, initial_state=states)
        context, weights = attention([x, memory_mask(memory)], return_attention_scores=True)
        return decoder_dense(combine(join([context, x]))), state_h, state_c, weights

    predictions, *_ = decode([state_h, state_c], encoder_outputs)
    model = keras.Model([encoder_input, decoder_input], predictions, name="attention_s2s")
    compile_model(model, learning_rate)

    encoder_model = keras.Model(encoder_input, [state_h, state_c, encoder_outputs], name="encoder")
    states = [keras.Input((lstm_units,), name=f"state_{name}") for name in "hc"]
    memory = keras.Input((None, lstm_units), name="memory")
    decoder_model = keras.Model(
        [decoder_input, *states, memory], decode(states, memory), name="decoder"
    )
    return model, encoder_model, decoder_model


def attention_weights(english, translation, encoder_model, decoder_model, data):
    """How much each English character counted for each character of the translation and its end.

    Returns:
        array (characters of the translation + 1, characters of `english`); its rows sum to 1.
    """
    ids = to_ids([english], data["input_token_index"])
    so_far = to_ids(["\t" + translation], data["target_token_index"])
    states = encoder_model.predict(ids, verbose=0)
    *_, weights = decoder_model.predict([so_far, *states], verbose=0)
    return weights[0]


def plot_attention(sentences, models, data, path):
    """Attention weights of the network's own translations of two sentences, as a picture."""
    data = create_reverse_indices(data)
    translations = translate(sentences, data, compile_decoder(*models[1:], data))
    fig, axes = plt.subplots(1, len(sentences), figsize=(6 * len(sentences), 7), squeeze=False)
    for ax, english, french in zip(axes.flat, sentences, translations, strict=True):
        weights = attention_weights(english, french, *models[1:], data)
        ax.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(range(len(english)), english, fontsize=12)
        ax.set_yticks(range(len(french) + 1), [*french, "end"], fontsize=12)
        ax.set(xlabel="English, read", ylabel="French, written")
    save_figure(fig, path)


def choose_sentences(data):
    """`EXAMPLES` where the network can read them, else two test sentences of average length."""
    readable = [
        text
        for text in EXAMPLES
        if set(text) <= set(data["input_chars"]) and len(text) <= data["max_encoder_seq_length"]
    ]
    test = list(test_sentences(data)["english"])
    return (readable + sorted(test, key=len)[len(test) // 2 :])[:2]


def compare(run_dir, plain_dir):
    """Set the run beside that of train_char_seq2seq.py on the same pairs: a table and curves."""
    try:
        runs = {
            name: json.loads((folder / "metrics.json").read_text())
            for name, folder in (("plain", plain_dir), ("attention", run_dir))
        }
    except (OSError, ValueError):
        print(f"No run of train_char_seq2seq.py in {plain_dir} to compare with.")
        return
    if runs["plain"]["data"] != runs["attention"]["data"]:
        print(f"{plain_dir} was trained on {runs['plain']['data']}: nothing to compare.")
        return
    print(f"\n{'':10} epochs  best  parameters  val accuracy  test BLEU  beam  test chrF")
    for name, of in runs.items():
        test = of["test"]
        print(
            f"{name:10} {of['epochs']:6} {of['best_epoch']:5} {of['parameters']:11,} "
            f"{of['val']['accuracy']:13.4f} {test['bleu']:10.1f} {test['bleu_beam']:5.1f} "
            f"{test['chrf']:10.1f}"
        )
    fig, axes = plt.subplots(1, 2, figsize=(10, 4))
    for (name, folder), colour in zip(
        (("plain", plain_dir), ("attention", run_dir)), ("C0", "C1"), strict=True
    ):
        history = pd.read_csv(folder / "history.csv").drop_duplicates("epoch", keep="last")
        for ax, metric in zip(axes, ("loss", "accuracy"), strict=True):
            epochs = history["epoch"] + 1
            ax.plot(
                epochs, history[f"val_{metric}"], colour, marker=".", label=f"{name}, validation"
            )
            ax.plot(epochs, history[metric], colour, marker=".", ls=":", label=f"{name}, training")
            ax.set(xlabel="epoch", ylabel=f"{metric} per character, teacher forcing")
            ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            ax.grid(alpha=0.3)
    axes[0].legend()
    save_figure(fig, run_dir / "comparison.png")


def main():
    args = parse_arguments(__doc__, "attention_seq2seq")
    models, data = run(args, build_models, SCRIPT)
    plot_attention(choose_sentences(data), models, data, args.run_dir / "attention.png")
    # Both scripts' default folders, and any two that are named alike, lie beside each other.
    compare(args.run_dir, args.run_dir.with_name(args.run_dir.name.replace("attention", "char")))


if __name__ == "__main__":
    main()
