"""The commands, and the mistakes that are seen before anything is loaded. No heavy imports: cli.py asks here first."""

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from errors import UserError, suggest
from hub import CHECKOUT, what_is_there

COMMANDS = {
    "fit": "train a model with a config, or resume a run with --ckpt_path last",
    "validate": "measure a run's best checkpoint on the validation rows",
    "test": "measure a run's best checkpoint on held-out rows that validation never saw",
    "predict": "answer the held-out rows of test, and write predictions-TIME.jsonl",
    "preview": "show the data as the model sees it, and why rows are dropped",
    "estimate": "estimate the memory and the time that a config needs",
    "generate": "answer prompts with a run's model",
    "chat": "talk to a run's model in the terminal",
    "serve": "answer the programs that speak OpenAI's protocol, with a run's model",
    "evaluate": "score a run's model on questions, beside the base or another run",
    "self_train": "train a run on its own right answers, in rounds",
    "export": "write a run's model as a folder that transformers opens",
    "report": "write a page with the figures and answers of a run, or of two",
    "replay": "recompute an optimizer step that was not finite, row by row",
}
CPU = "add --config configs/hardware/cpu.yaml"
ONE_GPU = "add --config configs/hardware/one_gpu.yaml"
NO_FSDP1 = "cannot hold a half-precision base beside float32 adapters"
FSDP = "add --config configs/strategy/fsdp.yaml"
AVERAGES = "holds averages of all weights, which our checkpoints do not have"
REFUSED = {
    "StochasticWeightAveraging": (AVERAGES, "remove it"),
    "WeightAveraging": (AVERAGES, "remove it"),
    "LearningRateFinder": ("would not change model.optim.lr", "try a few rates with trainer.limit_train_batches"),
    "BatchSizeFinder": ("cannot change the planned batches", "see estimate --device_gb"),
    "GradientAccumulationScheduler": ("cannot change the planned steps", "set trainer.accumulate_grad_batches"),
    "BaseFinetuning": ("would freeze and free weights, whose checkpoints would not fit", "set model.lora"),
    "ModelPruning": ("would change the names of weights, which checkpoints would not hold", "remove it"),
    "SpikeDetection": ("has no state that could be loaded again", "see train/loss and train/grad_norm"),
    "Timer": ("cannot be written to the run's config", "set trainer.max_time"),
    "PyTorchProfiler": ("profiles one loop, and a fit has several", "set trainer.profiler simple"),
    "ThroughputMonitor": ("needs functions, which a config cannot give", "see train/tokens_per_second"),
}
# The figures that metrics.csv may have, which a callback may watch. Those of answers need model.evaluation.rows
LOSSES = ("loss", "perplexity", *(f"loss_{role}" for role in ("thought", "answer", "tag_open", "tag_close", "end")))
TAGS = tuple(f"tag_{figure}_{tag}" for tag in ("open", "close") for figure in ("prob", "rank"))
FAILURES = ("cut", "cut_in_thought", "looped", "concluded", "contradicted")
BASELINES = ("baseline_frequent", "baseline_first", "baseline_random")
ANSWERS = ("answered", "answered_rows", "think_format", *FAILURES, "thoughts", "answer_match", *BASELINES)
SPEED = ("tokens_per_second", "rows_per_second", "packing_efficiency", "peak_memory_gb", "mfu", "hours_left")
FIGURES = (
    "lr",
    *(f"train/{name}" for name in (*LOSSES, "grad_norm", "skipped_steps", *SPEED)),
    *(f"val/{name}" for name in (*LOSSES, *TAGS, *ANSWERS)),
)
INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs in which Lightning starts the processes by itself


def options(args: Sequence[str]) -> list[tuple[str, str]]:
    """(option, text) of each option; the text of one without a value is what follows it."""
    pairs = [arg.split("=", 1) if "=" in arg else (arg, after) for arg, after in pairwise([*args, ""])]
    return [(name.lstrip("-"), text) for name, text in pairs if name.startswith("--") or name == "-c"]


def config_files(args: Sequence[str]) -> list[str]:
    """The files given as --config."""
    return [text for name, text in options(args) if name in ("c", "config")]


def find_configs(args: Sequence[str], needed: bool) -> list[str]:
    """The arguments, with the full path of each config that is in the checkout but not in this folder. Raises UserError
    for a config that does not exist, and if there is none although one is `needed`."""
    found, names = list(args), config_files(args)
    shipped = sorted(path.relative_to(CHECKOUT).as_posix() for path in CHECKOUT.glob("configs/**/*.yaml"))
    if needed and not names and not {"-h", "--help"} & set(args):
        raise UserError("--config", None, "is missing", "add --config configs/demo.yaml; configs/README.md lists all")
    for name in (name for name in names if not os.path.isfile(name)):  # unlike Path's, it takes every text
        if not name or name.startswith("--"):
            raise UserError("--config", None, "is given without a file", "write --config configs/demo.yaml")
        ours = CHECKOUT / name
        if not os.path.isfile(ours):
            fix = suggest(name, shipped, f"there are {', '.join(shipped)}")
            raise UserError("--config", name, what_is_there(name), fix)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"config {ours}", file=sys.stderr)
        found = [arg.replace(name, str(ours)) if arg in (name, f"--config={name}") else arg for arg in found]
    return found


def check_hardware(trainer: Any, dtype: str, gpus: int, quantize: str | None = None) -> None:
    """Raises UserError if `trainer`, `model.dtype` and `model.quantize` contradict each other, or if this machine with
    its `gpus` GPUs cannot run them."""
    devices, precision, strategy = trainer.devices, str(trainer.precision), trainer.strategy
    on_gpu = _on_gpu(trainer, gpus)
    if on_gpu and not gpus:
        problem = f"asks for {devices} GPU(s), and this machine has none"
        raise UserError("trainer.accelerator", trainer.accelerator, problem, CPU)
    if on_gpu and count_devices(devices) > gpus:
        fix = ONE_GPU if gpus == 1 else f"set trainer.devices {gpus} or {ONE_GPU}"
        raise UserError("trainer.devices", devices, f"asks for more than the {gpus} GPU(s) of this machine", fix)
    if precision.startswith(("64", "transformer")):
        fix = "give 32-true, bf16-mixed or 16-mixed"
        raise UserError("trainer.precision", precision, "is not a precision that this program trains in", fix)
    if precision in ("16-true", "bf16-true"):
        problem = "would hold the trained weights and the metrics in half precision"
        fix = f"set trainer.precision {precision.replace('true', 'mixed')}, and model.dtype for the base"
        raise UserError("trainer.precision", precision, problem, fix)
    if precision.startswith("16") and not on_gpu:
        raise UserError("trainer.precision", precision, "needs a GPU", CPU)
    if dtype == "float16" and not on_gpu:
        raise UserError("model.dtype", dtype, "is slow or not supported on a CPU", CPU)
    if quantize and any(name in str(strategy) for name in ("fsdp", "FSDP", "ModelParallel")):
        fix = "set trainer.strategy ddp, with a 4-bit base on each device, or model.quantize null"
        raise UserError("model.quantize", quantize, "cannot be sharded", fix)
    if isinstance(strategy, str) and strategy.startswith(("ddp_spawn", "ddp_fork", "ddp_notebook")):
        problem = "is for notebooks: its processes would share the state of this one"
        raise UserError("trainer.strategy", strategy, problem, "set trainer.strategy ddp")
    if isinstance(strategy, str) and strategy.startswith("fsdp"):
        raise UserError("trainer.strategy", strategy, NO_FSDP1, FSDP)
    sharded = getattr(getattr(strategy, "init_args", None), "data_parallel_size", None)
    total = count_devices(devices) * trainer.num_nodes
    if isinstance(sharded, int) and total not in (0, sharded):
        key = "trainer.strategy.init_args.data_parallel_size"
        raise UserError(key, sharded, f"is not the number of devices, {total}", f"set it to {total}")


def check_trainer(command: str, given: Any, gpus: int, environ: Mapping[str, str]) -> None:
    """Raises UserError for settings of the trainer that this machine with its `gpus` GPUs, this way of starting the
    processes or this command cannot follow."""
    check_hardware(given.trainer, given.model.dtype, gpus, given.model.quantize)
    check_launch(given.trainer, gpus, environ)
    check_measured(command, given.trainer)
    if command == "fit":
        check_habits(given)


def check_habits(given: Any) -> None:
    """Raises UserError for a habit of Lightning's that a fit cannot follow, docs/lightning.md."""
    trainer, optim = given.trainer, given.model.optim
    dry = "trainer.fast_dev_run true tries a config without files"
    if trainer.enable_checkpointing is False:
        raise UserError("trainer.enable_checkpointing", "false", "would keep nothing of the fit", f"remove it; {dry}")
    if trainer.barebones:
        raise UserError("trainer.barebones", "true", "leaves out the checks and the log", "remove it")
    if trainer.model_registry is not None:
        raise UserError("trainer.model_registry", trainer.model_registry, "would upload the model", "remove it")
    if trainer.fast_dev_run and given.ckpt_path is not None:
        raise UserError("trainer.fast_dev_run", trainer.fast_dev_run, "cannot continue a run", "remove --ckpt_path")
    endless = trainer.max_epochs == -1 and trainer.max_steps == -1
    if endless and (optim.lr_scheduler_type != "constant" or optim.warmup_ratio):
        key = "lr_scheduler_type" if optim.lr_scheduler_type != "constant" else "warmup_ratio"
        problem = "needs to know where training ends, and trainer.max_epochs is -1"
        raise UserError(f"model.optim.{key}", optim[key], problem, "set trainer.max_epochs or trainer.max_steps")


def check_measured(command: str, trainer: Any) -> None:
    """Raises UserError if a command that only measures would measure nothing, as after a fit without validations."""
    if command == "validate" and trainer.limit_val_batches == 0:
        fix = "add --trainer.limit_val_batches 1.0"
        raise UserError("trainer.limit_val_batches", trainer.limit_val_batches, "leaves nothing to measure", fix)


def check_classes(key: str, objects: Sequence[Any]) -> None:
    """Raises UserError for a callback or a profiler that does not work here, and for a callback that watches what no
    run logs. `key` is their setting."""
    for one in objects:
        for kind in type(one).__mro__:
            if kind.__name__ in REFUSED:
                problem, fix = REFUSED[kind.__name__]
                raise UserError(key, type(one).__name__, problem, fix)
        monitor = getattr(one, "monitor", None)
        if monitor is not None and monitor not in FIGURES and not monitor.startswith(("val/answer",)):
            fix = suggest(monitor, FIGURES, "see metrics.csv of a run")
            raise UserError(key, monitor, f"is no figure that {type(one).__name__} could watch", fix)


def check_launch(trainer: Any, gpus: int, environ: Mapping[str, str]) -> None:
    """Raises UserError if torchrun or SLURM started other processes than `trainer` asks for.

    Lightning does not compare the two: two processes with `trainer.devices 1` would be two separate trainings.
    """
    devices, nodes = count_devices(trainer.devices) or (gpus if _on_gpu(trainer, gpus) else 1), trainer.num_nodes
    if "TORCHELASTIC_RUN_ID" in environ:
        by, option, each = "torchrun", "--nproc_per_node", int(environ["LOCAL_WORLD_SIZE"])
        machines = int(environ["WORLD_SIZE"]) // each
    elif "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in INTERACTIVE:
        by, option, tasks = "SLURM", "--ntasks-per-node", int(environ["SLURM_NTASKS"])
        if tasks > 1 and "SLURM_STEP_ID" not in environ:
            problem = f"the job has {tasks} tasks, and srun did not start this process"
            raise UserError("SLURM", None, problem, "put srun before the command (docs/multi_node.md)")
        if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environ:
            problem = "the job was submitted with --ntasks alone, which Lightning cannot use"
            raise UserError("SLURM", None, problem, "submit it with --nodes and --ntasks-per-node")
        each = int(environ.get("SLURM_NTASKS_PER_NODE", "1"))
        machines = max(1, tasks // each)
    elif nodes > 1 and "MASTER_ADDR" not in environ:
        fix = "start it on each with torchrun or srun (docs/multi_node.md), or set trainer.num_nodes 1"
        raise UserError("trainer.num_nodes", nodes, "asks for more machines than this one", fix)
    else:
        return
    if devices != each:
        problem = f"is not the number of processes that {by} started on each machine, {each}"
        fix = f"set it to {each}, or start with {option} {devices}"
        raise UserError("trainer.devices", trainer.devices, problem, fix)
    if nodes != machines:
        problem = f"is not the number of machines on which {by} started the command, {machines}"
        raise UserError("trainer.num_nodes", nodes, problem, f"set it to {machines}")


def _on_gpu(trainer: Any, gpus: int) -> bool:
    return trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and gpus > 0)


def count_devices(devices: Any) -> int:
    """The number of devices that `trainer.devices` asks for; 0 for all that the machine has."""
    if isinstance(devices, str) and "," in devices:
        devices = [part for part in devices.split(",") if part.strip()]
    return len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else 0
