"""Settings that have no effect beside others: each is said in one line, so that nobody waits for its effect."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.settings import NOTHING, Setting
from datamodules.rows.sources import BUILT_IN


@dataclass(frozen=True)
class Case:
    """Settings (`keys`) of some commands that have no effect if `holds`, and the reason."""

    commands: str
    keys: str
    holds: Callable[[Any], Any]
    reason: str


def _always(given: Any) -> bool:
    return True


def _built_in(given: Any) -> bool:
    return given.data.mix is None and given.data.source in BUILT_IN


def _local(given: Any) -> bool:
    return _built_in(given) or (given.data.mix is None and Path(given.data.source).expanduser().exists())


def _one_file(given: Any) -> bool:
    return _built_in(given) or (given.data.mix is None and Path(given.data.source).expanduser().is_file())


def _thinking(keys: str, holds: Callable[[Any], Any], reason: str) -> tuple[Case, Case]:
    """The case of settings of thinking, for the commands that ask a model and for the answers of validation."""
    group = "model.evaluation.decoding."
    in_fit = " ".join(group + key for key in keys.split())
    return Case("generate evaluate self_train", keys, holds, reason), Case(
        "fit", in_fit, lambda g: holds(g.model.evaluation.decoding), reason
    )


def _never_cut(decoding: Any) -> bool:
    budgets = decoding.thinking_budget is None and decoding.thought_budget is None
    return budgets and not decoding.answer_reserve and not decoding.loop_tokens


OF_THOUGHTS = "thought_budget max_thoughts answer_reserve cut_message loop_tokens"
THINKING = (
    *_thinking(f"thinking_budget {OF_THOUGHTS}", lambda d: not d.thinking, "thinking is false"),
    *_thinking(OF_THOUGHTS, lambda d: d.thinking and d.thinking_budget == 0, "thinking_budget is 0"),
    *_thinking(
        "thinking_budget",
        lambda d: d.thinking and d.thinking_budget is not None and d.thinking_budget >= d.max_new_tokens,
        "max_new_tokens is not higher, and ends a response before",
    ),
    *_thinking(
        "thought_budget",
        lambda d: d.thinking_budget and d.thought_budget and d.thought_budget >= d.thinking_budget,
        "thinking_budget is not higher",
    ),
    *_thinking(
        "cut_message",
        lambda d: d.thinking and _never_cut(d),
        "nothing cuts thinking; set thinking_budget, thought_budget, answer_reserve or loop_tokens",
    ),
    *_thinking("extend_text", lambda d: not d.extend, "extend is 0"),
    *_thinking("loop_repeats", lambda d: not d.loop_tokens, "loop_tokens is 0"),
)
CASES = (
    *THINKING,
    Case("fit", "model.revision", lambda g: Path(g.model.name).is_dir(), "model.name is a folder"),
    Case("fit", "model.evaluation.samples", lambda g: not g.model.evaluation.rows, "model.evaluation.rows is 0"),
    Case("fit", "model.optim.new_token_lr", lambda g: g.model.lora is None, "without LoRA model.optim.lr trains all"),
    Case(
        "fit",
        "model.optim.min_lr_ratio",
        lambda g: g.model.optim.lr_scheduler_type == "constant",
        "model.optim.lr_scheduler_type is constant",
    ),
    Case(
        "fit preview",
        "data.source data.revision data.split data.config",
        lambda g: g.data.mix is not None,
        "data.mix names the sources, each with its own",
    ),
    Case("fit preview", "data.revision", _local, "data.source is not a data set of the hub"),
    Case("fit preview", "data.split data.config", _one_file, "data.source is one file, not a data set or a folder"),
    Case("fit preview", "data.order", _built_in, "the built-in rows are drawn by the seed"),
    Case("fit preview", "data.columns", _built_in, "the built-in rows have their own"),
    Case(
        "fit preview",
        "data.steps.markers",
        lambda g: g.data.steps.split != "marker",
        "data.steps.split is not marker",
    ),
    Case(
        "fit",
        "checkpoint.every_n_train_steps checkpoint.every_n_minutes checkpoint.save_total_limit",
        lambda g: g.trainer.fast_dev_run,
        "trainer.fast_dev_run writes no checkpoint",
    ),
    Case(
        "fit",
        "trainer.gradient_clip_algorithm",
        lambda g: not g.trainer.gradient_clip_val,
        "trainer.gradient_clip_val is not given",
    ),
    Case("fit", "trainer.default_root_dir", _always, "run.root and run.name choose the folder"),
    Case("fit", "trainer.use_distributed_sampler", _always, "each device has its own part of the planned batches"),
    Case("fit", "trainer.sync_batchnorm", _always, "language models have no batch norm"),
    Case("fit", "trainer.enable_autolog_hparams", _always, "all settings are in the run's config.yaml"),
    Case(
        "generate evaluate",
        "top_p seed",
        lambda g: g.temperature == 0,
        "temperature 0 takes the likeliest token each time",
    ),
    Case("preview", "rows", lambda g: g.row is not None, "row chooses the one that is shown"),
    Case(
        "estimate",
        "row_tokens row_supervised",
        lambda g: not (g.tflops or g.tokens_per_second),
        "only the time depends on it, which needs tflops or tokens_per_second",
    ),
    Case("preview estimate", "ckpt_path", _always, "this command loads no checkpoint"),
    Case("preview estimate", "model.start", _always, "this command loads no weights"),
)


def without_effect(command: str, settings: Mapping[str, Setting], given: Any) -> Iterator[str]:
    """One line for each setting that differs from its default and has no effect."""
    for case in (case for case in CASES if command in case.commands.split()):
        for key in case.keys.split():
            one, value = settings[key], _value(given, key)
            default = _plain(one.default) if one.default is not NOTHING else None
            if value is not None and value != default and case.holds(given):
                yield f"{key} has no effect: {case.reason}"


def ignored_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """One line for each of Lightning's variables for its Trainer: a config or a default decides every setting."""
    for name in sorted(environ):
        if name.startswith("PL_TRAINER_"):
            yield f"{name} has no effect: set trainer.{name.removeprefix('PL_TRAINER_').lower()}"


def _value(given: Any, key: str) -> Any:
    for name in key.split("."):
        given = getattr(given, name, None)
    return _plain(given)


def _plain(value: Any) -> Any:
    """A group of settings as a dict, whichever class holds it."""
    return dict(vars(value)) if hasattr(value, "__dict__") else value
