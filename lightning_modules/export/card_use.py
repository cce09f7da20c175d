"""The part of a model card that says how to run the model."""

from textwrap import fill

from datamodules.text.tags import Tags
from lightning_modules.export.card_facts import Card

QUESTION = "Solve x + 5 = 12"
PLACE = "THIS FOLDER"
MERGED = """
**vLLM, llama.cpp, Ollama**

They read LoRA matrices only, and this adapter also holds the embeddings of the tags. Export the merged model for them:
`python cli.py export` without `--adapter`.
"""
GGUF = """
**llama.cpp**

```sh
llama-server -m FILE.gguf
```

The server takes the first think block for reasoning, and the others, with their tags, for the answer. With
`--reasoning-format none` all blocks stand in the answer. The addon node-llama-cpp shows each block as a thought of its
own. It sends a system message of its own unless it is told not to, which the training may not have had.
"""


def use(card: Card, kind: str, grown: int | None) -> str:
    """Return how to run a merged model, an adapter or a GGUF file, in each program that can."""
    if kind == "merged":
        programs = f"{_transformers(card)}{_here()}{_vllm(card)}{_llama_cpp()}{_ollama()}"
    elif kind == "gguf":
        programs = f"{GGUF}{_ollama()}{_here()}"
    else:
        programs = f"{_peft(card, grown)}{_here()}{MERGED if card.new_tokens else _lora(card)}"
    return f"## How to run it\n{_download(card)}{programs}"


def _download(card: Card) -> str:
    """How to get the folder that the other lines name, if it is on the hub."""
    if card.repository is None:
        return ""
    return f'\n```sh\nhf download {card.repository} --local-dir "{PLACE}"\n```\n'


def _transformers(card: Card) -> str:
    return f"""
**transformers**

```python
from transformers import pipeline

ask = pipeline("text-generation", model="{card.repository or PLACE}")
print(ask([{{"role": "user", "content": "{QUESTION}"}}])[0]["generated_text"][-1]["content"])
```
"""


def _here() -> str:
    return """
**Thinkwright**, in its checkout, with the run that this folder was exported from: a page for the browser and OpenAI's
protocol, which has thoughts and answer in fields of their own; thinking can be limited and steered

```sh
python cli.py serve --run runs/NAME/TIME
```
"""


def _vllm(card: Card) -> str:
    parser = "think_blocks"
    without = (
        "Without the file: `--reasoning-parser glm45` takes several think blocks for reasoning in a whole reply.\n"
        "In a stream vLLM takes all after the first block for the answer, as most of its parsers always do."
        if card.tags == Tags()
        else "No parser of vLLM itself knows the tags of this model."
    )
    return f"""
**vLLM**

```sh
vllm serve "{PLACE}" --reasoning-parser-plugin "{PLACE}/{parser}_parser.py" --reasoning-parser {parser}
```

{without}
"""


def _llama_cpp() -> str:
    return """
**llama.cpp**, in the checkout of Thinkwright; `--gguf` also takes F16 and BF16

```sh
python cli.py export --run runs/NAME/TIME --gguf Q8_0
llama-server --jinja -m FILE.gguf
```
"""


def _ollama() -> str:
    return f"""
**Ollama**

```sh
cd "{PLACE}"
ollama create NAME -f Modelfile
ollama run NAME
```
"""


def _peft(card: Card, grown: int | None) -> str:
    revision = f', revision="{card.revision}"' if card.revision and card.hub_base else ""
    resize = f"base.resize_token_embeddings({grown}, mean_resizing=False)\n" if grown is not None else ""
    note = "The base has no embeddings for the tags, so it is resized first. " if grown is not None else ""
    note += 'Where a report says that a weight is "newly initialized" while the adapter loads, '
    note += "its own value is put there afterwards."
    return f"""
**transformers with peft**

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

folder = "{card.repository or PLACE}"
tokenizer = AutoTokenizer.from_pretrained(folder)
base = AutoModelForCausalLM.from_pretrained("{card.hub_base or "THE BASE"}"{revision}, dtype="auto")
{resize}base.generation_config = GenerationConfig.from_pretrained(folder)
model = PeftModel.from_pretrained(base, folder)
prompt = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "{QUESTION}"}}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
print(tokenizer.decode(model.generate(**prompt)[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
```

{fill(note, 120)}
"""


def _lora(card: Card) -> str:
    return f"""
**vLLM, llama.cpp**

The base knows the tags, so the adapter has LoRA matrices only. llama.cpp needs it as a GGUF file, which its
convert_lora_to_gguf.py makes.

```sh
vllm serve "{card.hub_base or "THE BASE"}" --enable-lora --lora-modules "{card.name}={PLACE}"
llama-server -m THE_BASE.gguf --lora THE_ADAPTER.gguf
```
"""
