"""A model folder with Qwen's vocabulary size, control tokens and chat template, and a few random weights.

Its tokenizer cuts text as Qwen's does. Its merges are learned from generated rows; the rest of the 151,643 tokens are
names that occur in no text. So ids, padding of the vocabulary and templates are checked as with the real tokenizer.
"""

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

from tests.stand_ins.rows import generated_rows

TINY = Path(__file__).resolve().parents[2] / "assets" / "tiny-qwen"
TOKENS = 151_643  # of Qwen's own vocabulary; three control tokens follow, then 290 embeddings without an id
VOCABULARY = 151_936
CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = 4_000
# Qwen1.5's template. It adds a system message if none is given
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 88, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 32_768,
}  # fmt: skip


def make_tokenizer(folder: Path) -> None:
    """Writes a tokenizer of 151,646 tokens: the embedded one's normalizer and pre-tokenizer, other merges."""
    from tokenizers import Tokenizer, models, trainers

    frame: dict[str, Any] = json.loads((TINY / "tokenizer.json").read_text())
    learner = Tokenizer(models.BPE())
    whole = Tokenizer.from_str(json.dumps(frame))
    learner.normalizer, learner.pre_tokenizer = whole.normalizer, whole.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=MERGES + 256, min_frequency=2, show_progress=False,
        initial_alphabet=[token for token in frame["model"]["vocab"] if len(token) == 1],
    )  # fmt: skip
    texts = (text for row in generated_rows(200, seed=1) for text in (row["instruction"], row["response"]))
    learner.train_from_iterator(texts, trainer)
    frame["model"] = json.loads(learner.to_str())["model"]
    known: dict[str, int] = frame["model"]["vocab"]
    unreached = (f"unreached-{k}" for k in range(TOKENS))
    known.update(zip(islice(unreached, TOKENS - len(known)), range(len(known), TOKENS), strict=True))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    frame["added_tokens"] = [{"id": TOKENS + k, "content": token, **flags} for k, token in enumerate(CONTROLS)]
    config = {
        "tokenizer_class": "Qwen2Tokenizer", "eos_token": CONTROLS[2], "pad_token": CONTROLS[0], "bos_token": None,
        "unk_token": None, "model_max_length": 32_768, "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {str(TOKENS + k): {"content": token, **flags} for k, token in enumerate(CONTROLS)},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(frame))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))


def make_base(folder: Path, tokenizer: Path, tied: bool) -> None:
    """Writes a Qwen2 of two small layers in bfloat16, with the tokenizer of another folder."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    config = Qwen2Config(
        vocab_size=VOCABULARY, tie_word_embeddings=tied, bos_token_id=TOKENS, eos_token_id=TOKENS + 2, **SHAPE
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
