"""What cannot work, said before anything is loaded: config files that are missing, what the machine cannot do, and
processes that were not started as the trainer is set.

No heavy imports: cli.py asks here first.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from errors import UserError, did_you_mean

CPU = "add --config configs/hardware/cpu.yaml"
ONE_GPU = "add --config configs/hardware/one_gpu.yaml"
NOT_FROM_HERE = ("ddp_spawn", "ddp_fork", "ddp_notebook")
FSDP = "add --config configs/strategy/fsdp.yaml"
INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs in which Lightning starts the processes by itself


def config_files(args: Sequence[str]) -> list[str]:
    """What was given as --config."""
    following = [b for a, b in pairwise(args) if a in ("-c", "--config")]
    return following + [a.partition("=")[2] for a in args if a.startswith("--config=")]


def require_config_files(args: Sequence[str]) -> None:
    """Raises UserError for a --config file that is not there: known at once, so said at once."""
    for name in config_files(args):
        if not Path(name).is_file():
            shipped = sorted(str(path) for path in Path("configs").rglob("*.yaml"))
            near = did_you_mean(name, shipped)
            known = f"there are {', '.join(shipped)}" if shipped else "give the path of a YAML file"
            raise UserError("--config", name, "does not exist", f"did you mean {near}?" if near else known)


def check_hardware(trainer: Any, dtype: str, gpus: int, quantize: str | None = None) -> None:
    """Raises UserError for a `trainer`, a `model.dtype` and a `model.quantize` that do not go together, or that this
    machine, with so many GPUs, cannot run."""
    devices, precision, strategy = trainer.devices, str(trainer.precision), trainer.strategy
    wants_gpu, on_gpu = trainer.accelerator in ("gpu", "cuda"), _on_gpu(trainer, gpus)
    if wants_gpu and not gpus:
        problem = f"asks for {devices} GPU(s), and this machine has none"
        raise UserError("trainer.accelerator", trainer.accelerator, problem, CPU)
    if on_gpu and count_devices(devices) > gpus:
        fix = ONE_GPU if gpus == 1 else f"set trainer.devices {gpus} or {ONE_GPU}"
        raise UserError("trainer.devices", devices, f"asks for more than the {gpus} GPU(s) of this machine", fix)
    if precision in ("16-true", "bf16-true"):
        problem = "would hold the trained weights and the metrics in half precision"
        fix = f"set trainer.precision {precision.replace('true', 'mixed')}, and model.dtype for the base"
        raise UserError("trainer.precision", precision, problem, fix)
    if precision.startswith("16") and not on_gpu:
        raise UserError("trainer.precision", precision, "needs a GPU", CPU)
    if dtype == "float16" and not on_gpu:
        raise UserError("model.dtype", dtype, "is slow or not supported on a CPU", CPU)
    if quantize and any(name in str(strategy) for name in ("fsdp", "FSDP", "ModelParallel")):
        fix = "set trainer.strategy ddp, which holds a 4-bit base on each device, or model.quantize null"
        raise UserError("model.quantize", quantize, "is for bases that are not sharded", fix)
    if isinstance(strategy, str) and strategy.startswith(NOT_FROM_HERE):
        problem = "is for notebooks: its processes share what a command line has begun"
        raise UserError("trainer.strategy", strategy, problem, "set trainer.strategy ddp")
    if isinstance(strategy, str) and strategy.startswith("fsdp"):
        problem = "cannot hold a half-precision base beside float32 adapters"
        raise UserError("trainer.strategy", strategy, problem, FSDP)
    sharded = getattr(getattr(strategy, "init_args", None), "data_parallel_size", None)
    total = count_devices(devices) * trainer.num_nodes
    if isinstance(sharded, int) and total not in (0, sharded):
        key = "trainer.strategy.init_args.data_parallel_size"
        raise UserError(key, sharded, f"is not the number of devices, {total}", f"set it to {total}")


def check_launch(trainer: Any, gpus: int, environ: Mapping[str, str]) -> None:
    """Raises UserError where torchrun or SLURM started other processes than `trainer` asks for.

    Lightning takes both as they come: two processes with `trainer.devices 1` would be two trainings, each alone.
    """
    devices, nodes = count_devices(trainer.devices) or (gpus if _on_gpu(trainer, gpus) else 1), trainer.num_nodes
    if "TORCHELASTIC_RUN_ID" in environ:
        by, option, each = "torchrun", "--nproc_per_node", int(environ["LOCAL_WORLD_SIZE"])
        machines = int(environ["WORLD_SIZE"]) // each
    elif "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in INTERACTIVE:
        by, option = "SLURM", "--ntasks-per-node"
        each, machines = _slurm_tasks(environ)
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
        problem = f"is not the number of machines that {by} started it on, {machines}"
        raise UserError("trainer.num_nodes", nodes, problem, f"set it to {machines}")


def _slurm_tasks(environ: Mapping[str, str]) -> tuple[int, int]:
    """How many tasks there are on each machine, and how many machines."""
    tasks = int(environ["SLURM_NTASKS"])
    if tasks > 1 and "SLURM_STEP_ID" not in environ:
        problem = f"the job has {tasks} tasks, and this process is none of them"
        raise UserError("SLURM", None, problem, "put srun before the command (docs/multi_node.md)")
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environ:
        problem = "the job was submitted with --ntasks alone, which Lightning cannot use"
        raise UserError("SLURM", None, problem, "submit it with --nodes and --ntasks-per-node")
    each = int(environ.get("SLURM_NTASKS_PER_NODE", "1"))
    return each, max(1, tasks // each)


def _on_gpu(trainer: Any, gpus: int) -> bool:
    return trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and gpus > 0)


def count_devices(devices: Any) -> int:
    """How many devices `trainer.devices` asks for; 0 where it takes what there is."""
    if isinstance(devices, list):
        return len(devices)
    text = str(devices)
    if "," in text:
        return len([part for part in text.split(",") if part.strip()])
    return int(text) if text.isdigit() else 0
