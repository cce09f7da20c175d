"""Model folders with random weights in the shapes of real models.

Shapes, padding of the vocabulary (151,936 embeddings for 151,646 tokens) and tied or untied heads are those of the real
models, so time and memory are, too. The embeddings of the two think tags have this project's initial values, so all
sides start with the same loss.
"""

from pathlib import Path
from typing import Any

from benchmarks.speed.rows import Rows

VOCABULARY = 151_936


def _shape(hidden: int, layers: int, inner: int, heads: int, kv_heads: int, tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": inner, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "tie_word_embeddings": tied,
    }  # fmt: skip


SHAPES = {
    "small": _shape(64, 2, 176, 4, 4, False),  # 20M parameters, mostly embeddings
    "medium": _shape(256, 4, 704, 4, 4, False),  # 81M parameters, mostly embeddings
    "qwen1.5-0.5b": _shape(1024, 24, 2816, 16, 16, True),
    "qwen1.5-1.8b": _shape(2048, 24, 5504, 16, 16, False),
    "qwen2-1.5b": _shape(1536, 28, 8960, 12, 2, True),
}


def make_model(folder: Path, task: dict[str, Any]) -> None:
    """Write the model folder, unless it exists."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    rows, device = Rows.load(task["rows"]), torch.device(task["device"])
    done = folder / "made"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in rows.tokenizer.items():
        (folder / name).write_bytes(content)
    shape, dtype = SHAPES[task["shape"]], getattr(torch, task["dtype"])
    config = Qwen2Config(
        vocab_size=task["vocabulary"], max_position_embeddings=32_768, bos_token_id=151_643, eos_token_id=151_645,
        dtype=dtype, **shape,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with device, torch.no_grad():
        model = Qwen2ForCausalLM(config)
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            if rows.tag_ids[-1] < task["vocabulary"]:
                for tag, subtokens in zip(rows.tag_ids, rows.tag_subtokens, strict=True):
                    module.weight[tag] = module.weight[subtokens].float().mean(0).to(dtype)
            if shape["tie_word_embeddings"]:
                break
    model.save_pretrained(folder)
    done.touch()
