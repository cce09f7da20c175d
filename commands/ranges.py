"""The values that each setting takes, in one table.

Every command checks its settings here, after their types and before anything is loaded. A test fails for a setting
without a line in the table.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from commands.rules import (
    Choice,
    CountOrShare,
    Devices,
    Duration,
    Each,
    Fields,
    FilePath,
    FileSize,
    Name,
    Number,
    Rule,
    Text,
)
from errors import UserError

SEED = 2**32 - 1  # the highest seed that NumPy takes
ANY_COUNT, COUNT, SHARE = Number(0), Number(), Number(0, 1)
RATE = Number(0, 1, above=True, below=True)
SOME_ROWS = Number(instead="null for all")
TOKENS = Number(1, 2**20)
TEMPERATURE = Number(0.01, 100, also=(0, 0.0), instead="0 for the most likely token")  # a logit / 1e-6 overflows
WORD, FILE = Text(), FilePath()
SAID = Text(2_000, lines=True, empty=True)  # texts that are put into a response
LONG_TEXT = Text(1_000_000, lines=True, empty=True)  # texts for the model

RANGES: dict[str, Rule] = {
    "seed_everything": Number(0, SEED),
    "ckpt_path": FILE,
    "run.name": Name(),
    "run.root": FILE,
    "model.name": FILE,
    "model.revision": WORD,
    "model.start": FILE,
    "model.gradient_checkpointing": Number(0, 10_000, instead="true for all layers"),
    "model.lora.rank": Number(1, 2**16),
    "model.lora.alpha": Number(0, 10**6, above=True),
    "model.lora.dropout": Number(0, 1, below=True),
    "model.lora.target_modules": Each(WORD),
    "model.role_weights.thought": Number(0, 10**6),
    "model.role_weights.tag": Number(0, 10**6),
    "model.role_weights.answer": Number(0, 10**6),
    "model.role_weights.end": Number(0, 10**6),
    "model.optim.lr": RATE,
    "model.optim.new_token_lr": RATE,
    "model.optim.weight_decay": Number(0, 100),
    "model.optim.betas": Each(Number(0, 1, below=True)),
    "model.optim.warmup_ratio": SHARE,
    "model.optim.min_lr_ratio": SHARE,
    "model.evaluation.rows": ANY_COUNT,
    "model.evaluation.samples": ANY_COUNT,
    "model.evaluation.decoding.max_new_tokens": TOKENS,
    "model.evaluation.decoding.temperature": TEMPERATURE,
    "model.evaluation.decoding.top_p": Number(0, 1, above=True),
    "model.evaluation.decoding.thinking_budget": ANY_COUNT,
    "model.evaluation.decoding.thought_budget": COUNT,
    "model.evaluation.decoding.max_thoughts": COUNT,
    "model.evaluation.decoding.min_thinking": ANY_COUNT,
    "model.evaluation.decoding.answer_reserve": ANY_COUNT,
    "model.evaluation.decoding.cut_message": SAID,
    "model.evaluation.decoding.extend": Number(0, 1_000),
    "model.evaluation.decoding.extend_text": SAID,
    "model.evaluation.decoding.loop_tokens": Number(0, 1_000),
    "model.evaluation.decoding.loop_repeats": Number(2, 1_000),
    "data.source": FILE,
    "data.revision": WORD,
    "data.split": WORD,
    "data.config": WORD,
    "data.template": LONG_TEXT,
    "data.system": LONG_TEXT,
    "data.new_tokens": Each(WORD, empty=True),
    "data.max_length": Number(8, 2**24),
    "data.near_duplicate_threshold": Number(0, 1, above=True, instead="null for equal instructions only"),
    "data.heldout_ratio": Number(0, 1, above=True, below=True, instead="0.1 to hold out one row in ten"),
    "data.seed": Number(0, SEED),
    "data.train_rows": SOME_ROWS,
    "data.val_rows": SOME_ROWS,
    "data.test_rows": SOME_ROWS,
    "data.batch_size": Number(1, 2**20),
    "data.tokens_per_step": COUNT,
    "data.val_batch_size": Number(1, 2**20),
    "data.num_workers": Number(0, 1024),
    "data.num_proc": Number(1, 1024),
    "data.cache_dir": FILE,
    "data.mix.name": FILE,
    "data.mix.weight": Number(0, 10**9, above=True),
    "data.mix.revision": WORD,
    "data.mix.split": WORD,
    "data.mix.config": WORD,
    "data.mix.columns": Fields(WORD),
    "data.mix.candidates": Fields(WORD),
    "data.mix.tags": Fields(WORD),
    "data.columns.messages": WORD,
    "data.columns.instruction": WORD,
    "data.columns.response": WORD,
    "data.columns.reasoning": WORD,
    "data.columns.input": WORD,
    "data.columns.system": WORD,
    "data.columns.ignore": Each(WORD, empty=True),
    "data.candidates.column": WORD,
    "data.candidates.verdicts": WORD,
    "data.candidates.keep": COUNT,
    "data.tags.open": WORD,
    "data.tags.close": WORD,
    "data.source_tags.open": WORD,
    "data.source_tags.close": WORD,
    "data.steps.markers": Each(Text(1_000, lines=True), empty=True),
    "checkpoint.every_n_train_steps": COUNT,
    "checkpoint.every_n_minutes": Number(0, 10**6, instead="null"),
    "checkpoint.save_total_limit": ANY_COUNT,
    "trainer.accelerator": WORD,
    "trainer.strategy": WORD,
    "trainer.devices": Devices(),
    "trainer.num_nodes": Number(1, 100_000),
    "trainer.fast_dev_run": ANY_COUNT,
    "trainer.max_epochs": Number(also=(-1,), instead="-1 for no end"),
    "trainer.min_epochs": COUNT,
    "trainer.max_steps": Number(also=(-1,), instead="-1 for no end"),
    "trainer.min_steps": COUNT,
    "trainer.max_time": Duration(),
    "trainer.limit_train_batches": CountOrShare(),
    "trainer.limit_val_batches": CountOrShare(zero=True),
    "trainer.limit_test_batches": CountOrShare(),
    "trainer.limit_predict_batches": CountOrShare(),
    "trainer.overfit_batches": CountOrShare(zero=True),
    "trainer.val_check_interval": Duration(CountOrShare()),
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.num_sanity_val_steps": Number(0, also=(-1,), instead="-1 for all"),
    "trainer.log_every_n_steps": COUNT,
    "trainer.accumulate_grad_batches": Number(1, 2**20),
    "trainer.gradient_clip_val": Number(0, 10**6, instead="null for no clipping"),
    "trainer.gradient_clip_algorithm": Choice(("norm", "value")),
    "trainer.profiler": Choice(("simple", "advanced")),
    "trainer.reload_dataloaders_every_n_epochs": ANY_COUNT,
    "trainer.default_root_dir": FILE,
    "trainer.model_registry": WORD,
    # generate, evaluate, export, replay
    "prompt": Each(LONG_TEXT, empty=True),
    "prompts": FILE,
    "run": FILE,
    "root": FILE,
    "max_new_tokens": TOKENS,
    "temperature": TEMPERATURE,
    "top_p": Number(0, 1, above=True),
    "thinking_budget": ANY_COUNT,
    "thought_budget": COUNT,
    "max_thoughts": COUNT,
    "min_thinking": ANY_COUNT,
    "answer_reserve": ANY_COUNT,
    "cut_message": SAID,
    "extend": Number(0, 1_000),
    "extend_text": SAID,
    "loop_tokens": Number(0, 1_000),
    "loop_repeats": Number(2, 1_000),
    "batch_size": Number(1, 2**20),
    "seed": Number(0, SEED),
    "device": WORD,
    "to": FILE,
    "max_shard_size": FileSize(),
    "push": WORD,
    "file": FILE,
    "task": FILE,
    "against": FILE,
    "samples": Number(1, 10_000),
    "rounds": Number(0, 1_000),
    "keep": Number(1, 10_000),
    "easy": SHARE,
    "overlay": Each(FILE, empty=True),
    "score": FILE,
    "precision": WORD,
    # chat, serve
    "host": WORD,
    "port": Number(0, 65_535),
    "effort_minimal": ANY_COUNT,
    "effort_low": ANY_COUNT,
    "effort_medium": ANY_COUNT,
    "context": Number(2, 2**20),
    "queue": Number(0, 2**16),
    "max_body": Number(2**10, 2**30),
    # preview, estimate
    "rows": ANY_COUNT,
    "row": Text(1_000),
    "dropped": Text(1_000, empty=True),
    "html": FILE,
    "jsonl": FILE,
    # report
    "runs": Each(FILE, empty=True),
    "png": FILE,
    "limit": Number(instead="null for all, or auto", also=("auto",)),
    "device_gb": Number(0, 10**6, above=True),
    "tflops": Number(1e-6, 10**9),
    "tokens_per_second": Number(1e-6, 10**12),
    "row_tokens": COUNT,
    "row_supervised": COUNT,
}


# Settings for which 1 and 1.0 differ: one batch, or all of them
COUNT_OR_SHARE = {
    key
    for key, rule in RANGES.items()
    if isinstance(rule, CountOrShare) or isinstance(vars(rule).get("number"), CountOrShare)
}


def check_ranges(settings: Mapping[str, Any], given: Any) -> None:
    """Raise UserError for the first of the settings, {key: its type}, whose value in `given` is out of its range, or
    null for a type without null."""
    for key, hint in settings.items():
        rule = RANGES.get(key)
        for value in _values(given, key.split(".")):
            if value is None:
                if hint not in (Any, None) and type(None) not in (hint, *get_args(hint)):
                    fix = rule.fix() if rule is not None else "give a value, or delete the line for the default"
                    raise UserError(key, "null", "is not a value of this setting", fix)
            elif rule is not None and (problem := rule.problem(value)) is not None:
                raise UserError(key, value, problem, rule.fix())


def _values(given: Any, path: Sequence[str]) -> Iterator[Any]:
    """The values of a setting: none if a group above it is null or a class by name, several in a list of groups."""
    if isinstance(given, list) and path:
        for one in given:
            yield from _values(one, path)
    elif not path:
        if not hasattr(given, "class_path"):
            yield given
    elif given is not None:
        found = given if isinstance(given, Mapping) else vars(given)
        if path[0] in found:
            yield from _values(found[path[0]], path[1:])
