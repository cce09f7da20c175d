"""The part of a model card that says how to run the model."""

from datamodules.text.tags import Tags
from lightning_modules.export.card_facts import Card

QUESTION = "Solve x + 5 = 12"
TOO_SMALL = "The base has no embeddings for the tags. It must be resized first, so pipeline cannot open this folder."


def use(card: Card, kind: str, grown: int | None) -> str:
    """Return how to run a merged model or an adapter, in each program that can."""
    if kind == "merged":
        return f"## How to run it\n{_transformers()}{_vllm(card)}{_gguf()}{_here()}"
    return f"## How to run it\n{_peft(card, grown)}{_transformers() if grown is None else ''}{_others()}{_here()}"


def _transformers() -> str:
    return f"""
**transformers**

```python
from transformers import pipeline

ask = pipeline("text-generation", model="THIS FOLDER")
print(ask([{{"role": "user", "content": "{QUESTION}"}}])[0]["generated_text"][-1]["content"])
```
"""


def _vllm(card: Card) -> str:
    if card.tags != Tags():
        return '\n**vLLM**\n\n```sh\nvllm serve "THIS FOLDER"\n```\n\nNo parser of vLLM knows the tags of this model.\n'
    return """
**vLLM**

```sh
vllm serve "THIS FOLDER" --reasoning-parser glm45
```

The parser `glm45` takes several think blocks for reasoning and the rest for the answer. Most others, `deepseek_r1` and
`qwen3` among them, take all after the first block for the answer. The parsers of vLLM 0.32 were tried, not the server.
"""


def _gguf() -> str:
    return "\n**llama.cpp, Ollama**\n\nBoth need a GGUF file, which this folder does not have.\n"


def _here() -> str:
    return f"""
**Thinkwright**, in its checkout, with the run that this folder was exported from; it can also limit and steer thinking

```sh
python cli.py generate --run runs/NAME/TIME --prompt "{QUESTION}"
```
"""


def _peft(card: Card, grown: int | None) -> str:
    base = card.hub_base or "THE BASE"
    resize = f"base.resize_token_embeddings({grown}, mean_resizing=False)\n" if grown is not None else ""
    why = "" if grown is None else f"\n{TOO_SMALL}\n"
    return f"""
**peft**

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}", dtype="auto")
{resize}model = PeftModel.from_pretrained(base, "THIS FOLDER")
```
{why}
Where a report says that a weight is "newly initialized" while the adapter loads, the adapter's own value is put there
afterwards.
"""


def _others() -> str:
    return """
**vLLM, llama.cpp, Ollama**

They read LoRA matrices only, and this adapter also holds the embeddings of the tags. Export the merged model for them:
`python cli.py export` without `--adapter`.
"""
