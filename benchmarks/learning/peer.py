"""The peer: TRL trains on the same rows its usual way, and answers the same questions. It runs in TRL's own Python.

    TRL/bin/python -m benchmarks.learning.peer ARM.json

ARM.json has base, rows and questions (JSON lines), steps, rate, seed, tokens, and the files to write. Usual means: rows
as prompt and completion with the model's chat template, the loss on the completion, tags as text, or with `tokens` as
two added tokens, with the embedding matrix trained. Steps have 4 rows, about as many supervised tokens as ours.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

TAGS = ("<think>", "</think>")
ROWS_PER_STEP = 4
ANSWERED = 32  # questions at once


def main(file: str) -> int:
    import torch

    task = json.loads(Path(file).read_text(encoding="utf-8"))
    torch.manual_seed(task["seed"])
    model, tokenizer = load(task)
    model, seconds = train(model, tokenizer, task)
    result = {
        "train_seconds": seconds,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "loss_answer": answer_loss(model, tokenizer, read(task["val"])),
    }
    started = time.perf_counter()
    answers = answer(model, tokenizer, read(task["questions"]), task["max_new_tokens"])
    result["answer_seconds"] = time.perf_counter() - started
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in answers)
    Path(task["responses"]).write_text(lines, encoding="utf-8")
    Path(task["result"]).write_text(json.dumps(result), encoding="utf-8")
    return 0


def read(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def messages(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    return {
        "prompt": [{"role": "user", "content": row["instruction"]}],
        "completion": [{"role": "assistant", "content": row["response"]}],
    }


def load(task: dict[str, Any]) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(task["base"])
    model = AutoModelForCausalLM.from_pretrained(task["base"], dtype=torch.bfloat16)
    if task["tokens"]:
        tokenizer.add_tokens(list(TAGS), special_tokens=False)
        model.resize_token_embeddings(len(tokenizer))
    return model, tokenizer


def train(model: Any, tokenizer: Any, task: dict[str, Any]) -> tuple[Any, float]:
    """Return the trained model, and the seconds of `trainer.train()`."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]

    # peft's trainable_token_indices would train the two rows alone, but TRL's loss fails on it for a tied model
    more = {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True} if task["tokens"] else {}
    lora = LoraConfig(
        r=64, lora_alpha=64, use_rslora=True, target_modules="all-linear", task_type="CAUSAL_LM", **more,
    )  # fmt: skip
    config = SFTConfig(
        output_dir=str(Path(task["result"]).with_suffix("")), max_length=1024, max_steps=task["steps"],
        per_device_train_batch_size=ROWS_PER_STEP, learning_rate=task["rate"], seed=task["seed"],
        lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": 0.1}, warmup_steps=0.05,
        max_grad_norm=1.0, weight_decay=0.0, bf16=True, use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False, save_strategy="no", report_to="none", logging_steps=10,
    )  # fmt: skip
    trainer = SFTTrainer(
        model, config, train_dataset=Dataset.from_list([messages(row) for row in read(task["rows"])]),
        peft_config=lora, processing_class=tokenizer,
    )  # fmt: skip
    started = time.perf_counter()
    trainer.train()
    return trainer.model, time.perf_counter() - started


def answer_loss(model: Any, tokenizer: Any, rows: list[dict[str, str]]) -> float:
    """Return the mean loss of the tokens after the last closing tag, in nats."""
    import torch

    model.eval()
    total, number = 0.0, 0
    for row in rows:
        prompt, response = messages(row)["prompt"], messages(row)["completion"]
        text = tokenizer.apply_chat_template([*prompt, *response], tokenize=False)
        after = text.rindex(TAGS[1]) + len(TAGS[1])
        end = text.rindex(row["response"]) + len(row["response"])
        given = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids = torch.tensor(given["input_ids"])
        with torch.no_grad():
            logits = model(input_ids=ids[None].to(model.device)).logits[0, :-1].float().cpu()
        losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        inside = torch.tensor([after <= start < end for start, _ in given["offset_mapping"]])[1:]
        total, number = total + float(losses[inside].sum()), number + int(inside.sum())
    return total / number


def answer(model: Any, tokenizer: Any, questions: list[dict[str, str]], most: int) -> list[dict[str, Any]]:
    """Return a response to each question, greedy."""
    import torch

    model.eval()
    tokenizer.padding_side = "left"
    found = []
    for start in range(0, len(questions), ANSWERED):
        part = questions[start : start + ANSWERED]
        prompts = [
            tokenizer.apply_chat_template(messages(one | {"response": ""})["prompt"], tokenize=False,
                                          add_generation_prompt=True)
            for one in part
        ]  # fmt: skip
        given = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        with torch.no_grad():
            written = model.generate(**given, max_new_tokens=most, do_sample=False)
        for one, ids in zip(part, written[:, given["input_ids"].shape[1] :].tolist(), strict=True):
            finished = tokenizer.eos_token_id in ids
            kept = ids[: ids.index(tokenizer.eos_token_id)] if finished else ids
            found.append({"id": one["id"], "response": tokenizer.decode(kept), "finished": finished})
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
