"""Make assets/tiny-qwen: tokenizer, configuration, and weights pretrained with configs/tiny_base.yaml.

    python assets/make_tiny_qwen.py            # about 45 minutes on 2 cores; replaces the folder at the end

The model is a Qwen2 with 0.9M parameters. Its tokenizer is a byte-level BPE that splits text like Qwen's (digits one by
one) and has Qwen's ChatML tokens. It learns the built-in problems in plain text, without think tags and without the
held-out problems: to answer at once, to write out the work on request, and arithmetic.
"""

import json
import shutil
import sys
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cli import main  # noqa: E402
from datamodules.rows import builtin  # noqa: E402

TARGET = ROOT / "assets" / "tiny-qwen"
# Qwen1.5's own pre-tokenizer (tokenizer.json of Qwen/Qwen1.5-1.8B-Chat)
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SHAPE = {
    "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 352, "num_attention_heads": 4,
    "num_key_value_heads": 4, "tie_word_embeddings": True, "max_position_embeddings": 1024, "initializer_range": 0.02,
}  # fmt: skip
VOCABULARY = 640  # size of the embedding matrix; as in Qwen's, the tokenizer has fewer tokens, with room for new ones


def write_tokenizer(folder: Path) -> None:
    """Train the tokenizer on the built-in rows and save it."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 32, initial_alphabet=alphabet, min_frequency=30, show_progress=False
    )
    texts = ["### Instruction: \n### Response: "] * 100
    for row in islice(builtin.rows(0, "plain"), 10_000):
        texts += [row["instruction"], row["response"]]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CHATML])
    end, _, turn_end = CHATML
    full = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=turn_end,
        pad_token=end,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    full.chat_template = CHAT_TEMPLATE
    full.save_pretrained(folder)


def write_config(folder: Path) -> None:
    """Save the model and generation configs."""
    from transformers import AutoTokenizer, GenerationConfig, Qwen2Config

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    Qwen2Config(
        vocab_size=VOCABULARY, architectures=["Qwen2ForCausalLM"], dtype="float32", **SHAPE, **ends
    ).save_pretrained(folder)
    GenerationConfig(**ends).save_pretrained(folder)


def make(scratch: Path) -> None:
    """Make the model in `scratch` and move it to assets/tiny-qwen."""
    scratch.mkdir(parents=True)
    write_tokenizer(scratch)
    write_config(scratch)
    name = ["--model.name", str(scratch)]
    if code := main(["fit", "--config", str(ROOT / "configs" / "tiny_base.yaml"), *name]):
        sys.exit(code)
    from commands.load import load_run

    loaded = load_run(None, None, "runs")
    loaded.tuner.net.causal_lm.save_pretrained(scratch)  # type: ignore[union-attr]
    write_config(scratch)
    shutil.rmtree(TARGET, ignore_errors=True)
    shutil.move(scratch, TARGET)
    size = sum(path.stat().st_size for path in TARGET.iterdir())
    print(json.dumps({"folder": str(TARGET), "bytes": size}))


if __name__ == "__main__":
    make(ROOT / "assets" / ".tiny-qwen.new")
