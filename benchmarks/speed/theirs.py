"""The peers' sides: TRL's SFTTrainer, and a plain loop over a transformers model with peft's LoRA.

Options of both: `attention=NAME` (transformers' attn_implementation), `checkpointing` (gradient checkpointing; on by
default in TRL, off here), `liger` (Liger's layer kernels; in the plain loop also its fused loss), `new_tokens` (train
the embeddings of the think tags by peft's trainable_token_indices; TRL cannot for tied models). Of the plain loop:
`compile` (torch.compile for dynamic lengths).

TRL's other settings are its fastest for these rows: the compared precision (its default is bfloat16), fused AdamW,
metrics every 50 steps, padding-free batches if rows are packed. TRL chooses its loss by the device
(trl/trainer/utils.py, add_fused_lm_head); the result reports it as `path`.
"""

import importlib.util
import tempfile
import time
import warnings
from typing import Any

import torch

from benchmarks.speed.adapters import same_start
from benchmarks.speed.record import Steps
from benchmarks.speed.rows import IGNORED, Rows


def attention(task: dict[str, Any]) -> str:
    if given := task["options"].get("attention"):
        return str(given)
    flash = task["device"] == "cuda" and task["dtype"] != "float32" and importlib.util.find_spec("flash_attn")
    return "flash_attention_2" if task["flat"] and flash else "sdpa"


def load(task: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, task["dtype"])
    return AutoModelForCausalLM.from_pretrained(task["model"], dtype=dtype, attn_implementation=attention(task))


def lora(task: dict[str, Any], model: Any) -> Any:
    from peft import LoraConfig

    more = {}
    if task["options"].get("new_tokens"):
        ids = Rows.load(task["rows"]).tag_ids
        tied = model.config.tie_word_embeddings
        more["trainable_token_indices"] = {"embed_tokens": ids} if tied else {"embed_tokens": ids, "lm_head": ids}
    return LoraConfig(
        r=task["rank"], lora_alpha=task["alpha"], lora_dropout=0.0, target_modules=task["targets"],
        task_type="CAUSAL_LM", **more,
    )  # fmt: skip


def examples(task: dict[str, Any]) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Return the rows of all steps, and for each step the places of its rows among them."""
    rows = Rows.load(task["rows"])
    used = sorted({row for step in task["steps"] for row in step})
    place = {row: k for k, row in enumerate(used)}
    made = [{"input_ids": rows.row(row)[0].tolist(), "labels": rows.labels(row).tolist()} for row in used]
    return made, [[place[row] for row in step] for step in task["steps"]]


def run_trl(task: dict[str, Any], steps: Steps) -> dict[str, Any]:
    from datasets import Dataset
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]
    from trl.trainer import utils as trl_utils  # type: ignore[import-not-found]

    warnings.filterwarnings("ignore", ".*")
    options = task["options"]
    model = load(task)

    class Recorder(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            steps.begin()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            steps.end(trainer.last_loss)

    class GivenSteps(SFTTrainer):  # type: ignore[misc]
        """TRL's own collator, transfer to the device, loss and update, with the planned steps."""

        def get_train_dataloader(self) -> Any:
            loader = DataLoader(
                self.train_dataset, batch_sampler=given, collate_fn=self.data_collator, num_workers=task["workers"],
                pin_memory=task["device"] == "cuda",
            )  # fmt: skip
            return self.accelerator.prepare(loader)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            self.last_loss = super().training_step(*args, **kwargs)
            return self.last_loss

    with tempfile.TemporaryDirectory() as scratch:
        config = SFTConfig(
            output_dir=scratch, max_length=None, padding_free=task["flat"], learning_rate=task["lr"],
            dataset_kwargs={"skip_prepare_dataset": True}, per_device_train_batch_size=len(task["steps"][0]),
            lr_scheduler_type="constant", max_steps=len(task["steps"]), max_grad_norm=1.0, weight_decay=0.0,
            optim="adamw_torch_fused", fp16=task["dtype"] == "float16", bf16=task["dtype"] == "bfloat16",
            use_cpu=task["device"] == "cpu", gradient_checkpointing=bool(options.get("checkpointing")),
            use_liger_kernel=bool(options.get("liger")), logging_steps=50, save_strategy="no", report_to="none",
            disable_tqdm=True,
        )  # fmt: skip
        started = time.perf_counter()
        made, given = examples(task)
        trainer = GivenSteps(
            model, config, train_dataset=Dataset.from_list(made), peft_config=lora(task, model),
            processing_class=AutoTokenizer.from_pretrained(task["model"]), callbacks=[Recorder()],
        )  # fmt: skip
        assert same_start(trainer.model), "no LoRA found"
        prepared = time.perf_counter()
        trainer.train()
    triton = trl_utils._use_triton(torch.device(task["device"]))
    scored = "supervised positions (Triton)" if triton else "all positions (torch)"
    path = f"{'padding-free' if task['flat'] else 'padded'}, attention {attention(task)}, fused head for {scored}"
    return {"prepare": prepared - started, "start": steps.begun - prepared, "path": path}


def run_plain(task: dict[str, Any], steps: Steps) -> dict[str, Any]:
    """Batches, `model(**batch).loss`, backward, clipping, fused AdamW."""
    from peft import get_peft_model

    warnings.filterwarnings("ignore", ".*")
    options, device = task["options"], torch.device(task["device"])
    base = load(task)
    if options.get("liger"):
        from liger_kernel.transformers import _apply_liger_kernel_to_instance  # type: ignore[import-not-found]

        _apply_liger_kernel_to_instance(model=base)
    model = get_peft_model(base.to(device), lora(task, base))
    if options.get("checkpointing"):
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    assert same_start(model), "no LoRA found"
    if options.get("compile"):
        model.compile(dynamic=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=task["lr"], weight_decay=0.0, fused=True)
    half = task["dtype"] != "float32"
    scaler = torch.amp.GradScaler(device.type, enabled=task["dtype"] == "float16")
    started = time.perf_counter()
    made, given = examples(task)
    loader: Any = torch.utils.data.DataLoader(
        made,  # type: ignore[arg-type]
        batch_sampler=given, collate_fn=flat if task["flat"] else padded, num_workers=task["workers"],
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    prepared = time.perf_counter()
    model.train()
    steps.begin()
    for batch in loader:
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        with torch.autocast(device.type, dtype=getattr(torch, task["dtype"]) if half else None, enabled=half):
            loss = model(**batch, use_cache=False).loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        steps.end(loss)
    how = ", compiled" if options.get("compile") else ""
    path = f"{'flat' if task['flat'] else 'padded'}, attention {attention(task)}, the model's own loss{how}"
    return {"prepare": prepared - started, "start": steps.begun - prepared, "path": path}


def padded(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in batch)

    def pad(values: list[int], filler: int) -> list[int]:
        return values + [filler] * (width - len(values))

    return {
        "input_ids": torch.tensor([pad(row["input_ids"], 0) for row in batch]),
        "labels": torch.tensor([pad(row["labels"], IGNORED) for row in batch]),
        "attention_mask": torch.tensor([pad([1] * len(row["input_ids"]), 0) for row in batch]),
    }


def flat(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.tensor([[i for row in batch for i in row["input_ids"]]]),
        "labels": torch.tensor([[i for row in batch for i in row["labels"]]]),
        "position_ids": torch.cat([torch.arange(len(row["input_ids"])) for row in batch])[None],
    }
