"""estimate: the memory of a fit on each device, and its time, before anything is loaded."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from commands.fit_settings import build_model, fit_parser
from commands.parsing import Parser
from commands.paths import check_model
from commands.preflight import FSDP, NO_FSDP1, count_devices
from errors import UserError
from lightning_modules.estimate.memory import MemoryEstimate, StepShape, estimate_memory, net_on_meta
from lightning_modules.run.flops import ModelShape, training_flops
from lightning_modules.update.precision import MIXED


def build_parser() -> Parser:
    parser = fit_parser(
        "estimate",
        "The memory at the peak of a training step, in MB per device. The step runs on tensors without memory, "
        "so nothing is loaded. With --tflops or --tokens_per_second also the time of the fit, without evaluation.",
    )
    parser.add_argument(
        "--device_gb",
        type=float | None,
        help="Memory of a device in GB. Prints how many layers to checkpoint to stay below it. Give nine tenths of the "
        "device's memory, since the estimate misses some of it.",
    )
    parser.add_argument(
        "--tflops", type=float | None, help="TFLOP/s that a device reaches: its peak times the utilization, e.g. 0.4."
    )
    parser.add_argument(
        "--tokens_per_second", type=float | None, help="Supervised tokens per second of all devices, from a run's log."
    )
    parser.add_argument("--row_tokens", type=int | None, help="Mean tokens of a row; null is data.max_length.")
    parser.add_argument("--row_supervised", type=int | None, help="Mean supervised tokens of a row; null is all.")
    return parser


def run(args: Sequence[str]) -> int:
    parser = build_parser()
    given = parser.read(args)
    check_model(given)
    tuner = build_model(parser, given)
    data, trainer = given.data, given.trainer
    devices = (count_devices(trainer.devices) or 1) * trainer.num_nodes
    sharded = "ModelParallel" in str(trainer.strategy)
    if not sharded and "fsdp" in str(trainer.strategy):
        raise UserError("trainer.strategy", "fsdp", NO_FSDP1, FSDP)
    check(given)
    on_gpu = trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and torch.cuda.is_available())
    step = StepShape(
        data.batch_size, data.max_length, on_gpu, MIXED.get(str(trainer.precision)), trainer.accumulate_grad_batches
    )
    net = net_on_meta(tuner)
    counts = sorted({1, 2, 4, 8, devices} if sharded else {devices})
    where = f"{'GPU' if on_gpu else 'CPU'}, {'FSDP2' if sharded else 'not sharded'}"
    batch = f"batches of {step.batch_size} x {step.max_length:,} tokens, all supervised"
    print(f"{tuner.name}, MB per device ({where}); {batch}")
    nf4 = tuner.quantize == "nf4"
    print_table(estimate_memory(net, step, counts, sharded, nf4))
    if given.device_gb:

        def peak(checkpointed: int) -> float:
            tuner.gradient_checkpointing = checkpointed
            return estimate_memory(net_on_meta(tuner), step, [devices], sharded, nf4)[devices].total

        with Console().status("counting the layers to checkpoint"):
            advice = depth(peak, len(net.causal_lm.base_model.layers), given.device_gb)
        print(advice)
    if given.tflops or given.tokens_per_second:
        print(duration(given, ModelShape.of(net), devices))
    return 0


def check(given: Any) -> None:
    """Raise UserError for two rates at once, and for a missing number on which the time depends."""
    if given.tflops and given.tokens_per_second:
        raise UserError("tflops", given.tflops, "and tokens_per_second are both given", "give one of the two")
    if (given.tflops or given.tokens_per_second) and given.data.train_rows is None:
        problem = "gives no number of rows, on which the time depends"
        raise UserError("data.train_rows", None, problem, "add --data.train_rows N after the configs")


def print_table(columns: dict[int, MemoryEstimate]) -> None:
    """Print a table with one column for each number of devices."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for devices in columns:
        table.add_column(f"{devices} device{'s' if devices > 1 else ''}", justify="right")
    for label in next(iter(columns.values())).parts():
        if any(one.parts()[label] for one in columns.values()):
            table.add_row(label, *(f"{one.parts()[label] / 1e6:,.1f}" for one in columns.values()))
    table.add_row("at the peak", *(f"{one.total / 1e6:,.1f}" for one in columns.values()), style="bold")
    Console().print(table)
    print("Of the last three only the largest counts. The optimizer's step holds no activations.")


def depth(peak: Callable[[int], float], layers: int, device_gb: float) -> str:
    """The fewest of `layers` to checkpoint for a device of `device_gb`, as a sentence; `peak` maps a number of
    checkpointed layers to bytes."""
    room = device_gb * 1e9
    if (least := peak(layers)) > room:
        return (
            f"{device_gb:g} GB are not enough: with all layers checkpointed the peak is {least / 1e9:.2f} GB. Lower "
            "data.batch_size or data.max_length, or load the base in fewer bits (model.dtype, model.quantize)"
        )
    fewest = bisect_left(range(layers), True, key=lambda checkpointed: peak(checkpointed) <= room)
    if not fewest:
        return f"{device_gb:g} GB are enough without gradient checkpointing"
    way = f"--model.gradient_checkpointing {fewest}"
    return f"{device_gb:g} GB are enough with {fewest} of {layers} layers checkpointed: {way}"


def duration(given: Any, shape: ModelShape, devices: int) -> str:
    """The time of the fit at the given rate, as a sentence."""
    data, trainer = given.data, given.trainer
    length = given.row_tokens or data.max_length
    supervised = min(given.row_supervised or length, length)
    epochs, steps = trainer.max_epochs or -1, trainer.max_steps
    if epochs < 0 and steps < 0:
        fix = "set trainer.max_epochs or trainer.max_steps"
        raise UserError("trainer.max_epochs", trainer.max_epochs, "does not say where training ends", fix)
    step_rows = steps * data.batch_size * trainer.accumulate_grad_batches * devices
    rows = min(n for n in (epochs * data.train_rows, step_rows) if n > 0)
    flops = rows * training_flops(shape, [length], supervised)
    if given.tflops:
        seconds, rate = flops / (given.tflops * 1e12 * devices), f"{given.tflops:g} TFLOP/s per device"
    else:
        seconds, rate = rows * supervised / given.tokens_per_second, f"{given.tokens_per_second:,.0f} tokens/s"
    work = f"{rows:,} rows of {length:,} tokens, {supervised:,} of them supervised: {flops / 1e15:,.2f} PFLOP"
    per_second = rows * supervised / seconds
    speed = f"{per_second:,.0f} supervised tokens/s, {flops / seconds / devices / 1e12:,.2f} TFLOP/s per device"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{work}. At {rate} the fit takes {hours} h {minutes} min ({speed}), without evaluation."
