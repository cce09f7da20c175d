"""estimate: what a device would hold of a config's fit, and how long that would take, before anything is loaded."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jsonargparse import ActionConfigFile, set_parsing_settings  # type: ignore[attr-defined]  # it is exported
from rich import box
from rich.console import Console
from rich.table import Table

from commands.parsing import Complaint, Groups, Parser, explain, only_what_matters
from commands.preflight import count_devices
from errors import UserError
from lightning_modules.estimate.memory import MemoryEstimate, Steps, estimate_memory, shapes_of
from lightning_modules.run.flops import Shape, training_flops
from lightning_modules.think_tuner import ThinkTuner
from lightning_modules.update.precision import MIXED

MATTERS: Groups = {
    "model": None,
    "data": ("tags", "new_tokens", "max_length", "batch_size", "train_rows"),
    "trainer": (
        "devices", "num_nodes", "strategy", "accelerator", "precision", "accumulate_grad_batches", "max_epochs",
        "max_steps",
    ),
}  # fmt: skip


def build_parser() -> Parser:
    parser = Parser(
        prog="cli.py estimate",
        description="What each device would hold at the peak of a step, in MB, from shapes alone: a step is taken on "
        "tensors without memory. Takes the configs of fit. With --tflops or --tokens_per_second also how long the "
        "fit would take, evaluation apart.",
    )
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="A config of fit; of several the later wins.")
    parser.add_argument(
        "--device_gb",
        type=float | None,
        help="Memory of a device, in GB: says how many layers must be checkpointed for the fit to stay within it. "
        "Leave a tenth of the device's for what no estimate sees.",
    )
    parser.add_argument(
        "--tflops",
        type=float | None,
        help="TFLOP/s that a device keeps up: its peak times the share it reaches, say 0.4.",
    )
    parser.add_argument(
        "--tokens_per_second", type=float | None, help="Supervised tokens a second of all devices, as a run has logged."
    )
    parser.add_argument("--row_tokens", type=int | None, help="Mean tokens of a row; null: data.max_length.")
    parser.add_argument("--row_supervised", type=int | None, help="Mean supervised tokens of a row; null: all.")
    parser.add_class_arguments(ThinkTuner, "model")
    parser.add_argument("--data.tags.open", type=str, default="<think>", help="As in fit.")
    parser.add_argument("--data.tags.close", type=str, default="</think>", help="As in fit.")
    parser.add_argument("--data.new_tokens", type=list[str], default=[], help="As in fit.")
    parser.add_argument("--data.max_length", type=int, default=512, help="As in fit.")
    parser.add_argument("--data.batch_size", type=int, default=4, help="As in fit.")
    parser.add_argument("--data.train_rows", type=int | None, default=10_000, help="As in fit.")
    parser.add_argument("--trainer.devices", type=int | str | list[int], default=1, help="Devices of a machine.")
    parser.add_argument("--trainer.num_nodes", type=int, default=1, help="Machines.")
    parser.add_argument("--trainer.strategy", type=Any, default="auto", help="ddp, or FSDP2 by configs/strategy.")
    parser.add_argument("--trainer.accelerator", type=str, default="auto", help="As in fit.")
    parser.add_argument("--trainer.precision", type=str | int | None, help="As in fit.")
    parser.add_argument("--trainer.accumulate_grad_batches", type=int, default=1, help="As in fit.")
    parser.add_argument("--trainer.max_epochs", type=int | None, default=3, help="As in fit.")
    parser.add_argument("--trainer.max_steps", type=int, default=-1, help="As in fit.")
    parser.link_arguments("data.tags.open", "model.tags.open")
    parser.link_arguments("data.tags.close", "model.tags.close")
    parser.link_arguments("data.new_tokens", "model.new_tokens")
    return parser


def run(args: Sequence[str]) -> int:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = build_parser()
    try:
        given = parser.parse_args(only_what_matters(args, MATTERS))
        tuner: ThinkTuner = parser.instantiate_classes(given).model
    except Complaint as complaint:
        raise explain(complaint, ["estimate", *args]) from complaint
    data, trainer = given.data, given.trainer
    devices = (count_devices(trainer.devices) or 1) * trainer.num_nodes
    sharded = "ModelParallel" in str(trainer.strategy)
    if not sharded and "fsdp" in str(trainer.strategy):
        raise UserError("trainer.strategy", "fsdp", "is not used here", "add --config configs/strategy/fsdp.yaml")
    check(given)
    on_gpu = trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and torch.cuda.is_available())
    steps = Steps(
        data.batch_size, data.max_length, on_gpu, MIXED.get(str(trainer.precision)), trainer.accumulate_grad_batches
    )
    net = shapes_of(tuner)
    counts = sorted({1, 2, 4, 8, devices} if sharded else {devices})
    where = f"{'GPU' if on_gpu else 'CPU'}, {'FSDP2' if sharded else 'each device holds all'}"
    batch = f"batches of {steps.rows} x {steps.length:,} tokens, all supervised"
    print(f"{tuner.name}, MB a device ({where}); {batch}")
    nf4 = tuner.quantize == "nf4"
    show(estimate_memory(net, steps, counts, sharded, nf4))
    if given.device_gb:

        def peak(checkpointed: int) -> float:
            tuner.gradient_checkpointing = checkpointed
            return estimate_memory(shapes_of(tuner), steps, [devices], sharded, nf4)[devices].total

        with Console().status("looking for the fewest layers to checkpoint"):
            said = depth(peak, len(net.causal_lm.base_model.layers), given.device_gb)
        print(said)
    if given.tflops or given.tokens_per_second:
        print(duration(given, Shape.of(net), devices))
    return 0


def check(given: Any) -> None:
    """Raises UserError for a number that cannot be, or that the time would need."""
    least: dict[str, float] = {
        "data.max_length": 8,
        "data.batch_size": 1,
        "trainer.accumulate_grad_batches": 1,
        "row_tokens": 1,
    }
    least |= {"row_supervised": 1, "tflops": 1e-6, "tokens_per_second": 1e-6, "device_gb": 1e-6}
    for key, value in least.items():
        if given[key] is not None and given[key] < value:
            raise UserError(key, given[key], "is too low", f"give {value} or more")
    if given.tflops and given.tokens_per_second:
        raise UserError("tflops", given.tflops, "is given beside tokens_per_second", "give one of the two")
    if (given.tflops or given.tokens_per_second) and given.data.train_rows is None:
        problem = "does not say how many rows there are, which the time depends on"
        raise UserError("data.train_rows", None, problem, "add --data.train_rows N after the configs")


def show(columns: dict[int, MemoryEstimate]) -> None:
    """One column for each number of devices."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for devices in columns:
        table.add_column(f"{devices} device{'s' if devices > 1 else ''}", justify="right")
    for label in next(iter(columns.values())).parts():
        if any(one.parts()[label] for one in columns.values()):
            table.add_row(label, *(f"{one.parts()[label] / 1e6:,.1f}" for one in columns.values()))
    table.add_row("at the peak", *(f"{one.total / 1e6:,.1f}" for one in columns.values()), style="bold")
    Console().print(table)
    print("At the peak there is only one of the last three, and the first of them has no activations beside it.")


def depth(peak: Callable[[int], float], layers: int, device_gb: float) -> str:
    """With how few of `layers` checkpointed a device of `device_gb` holds a fit; `peak` gives bytes for a number."""
    room = device_gb * 1e9
    if (least := peak(layers)) > room:
        return (
            f"{device_gb:g} GB do not hold it, even with all layers checkpointed: {least / 1e9:.2f} GB. Lower "
            "data.batch_size or data.max_length, or hold the base in fewer bits (model.dtype, model.quantize)"
        )
    fewest = bisect_left(range(layers), True, key=lambda checkpointed: peak(checkpointed) <= room)
    if not fewest:
        return f"{device_gb:g} GB hold it without gradient checkpointing"
    way = f"--model.gradient_checkpointing {fewest}"
    return f"{device_gb:g} GB hold it with {fewest} of {layers} layers checkpointed: {way}"


def duration(given: Any, shape: Shape, devices: int) -> str:
    """How long the fit takes at the rate that is given."""
    data, trainer = given.data, given.trainer
    length = given.row_tokens or data.max_length
    supervised = min(given.row_supervised or length, length)
    epochs, steps = trainer.max_epochs or -1, trainer.max_steps
    if epochs < 0 and steps < 0:
        fix = "set trainer.max_epochs or trainer.max_steps"
        raise UserError("trainer.max_epochs", trainer.max_epochs, "does not say where training ends", fix)
    of_steps = steps * data.batch_size * trainer.accumulate_grad_batches * devices
    rows = min(n for n in (epochs * data.train_rows, of_steps) if n > 0)
    flops = rows * training_flops(shape, [length], supervised)
    if given.tflops:
        seconds, rate = flops / (given.tflops * 1e12 * devices), f"{given.tflops:g} TFLOP/s a device"
    else:
        seconds, rate = rows * supervised / given.tokens_per_second, f"{given.tokens_per_second:,.0f} tokens/s"
    rows_are = f"{rows:,} rows of {length:,} tokens, {supervised:,} of them supervised: {flops / 1e15:,.2f} PFLOP"
    per_second = rows * supervised / seconds
    speed = f"{per_second:,.0f} supervised tokens/s, {flops / seconds / devices / 1e12:,.2f} TFLOP/s a device"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{rows_are}. At {rate} that takes {hours} h {minutes} min ({speed}), evaluation apart."
