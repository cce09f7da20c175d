"""estimate: what a device would hold of a config's model, before anything is loaded."""

from collections.abc import Sequence
from typing import Any

from jsonargparse import ActionConfigFile, set_parsing_settings  # type: ignore[attr-defined]  # it is exported
from rich import box
from rich.console import Console
from rich.table import Table

from commands.parsing import Complaint, Groups, Parser, explain, only_what_matters
from commands.preflight import count_devices
from errors import UserError
from lightning_modules.memory import Held, held, shapes_of
from lightning_modules.think_tuner import ThinkTuner

MATTERS: Groups = {
    "model": None,
    "data": ("tags", "new_tokens"),
    "trainer": ("devices", "num_nodes", "strategy"),
}
NAMES = {
    "frozen": "frozen base",
    "trained": "trained",
    "gradients": "gradients",
    "moments": "optimizer",
    "gathered": "gathered by FSDP",
    "total": "in all",
}


def build_parser() -> Parser:
    parser = Parser(
        prog="cli.py estimate",
        description="What each device would hold of the model, in MB, from shapes alone. Takes the configs of fit. "
        "Activations are not counted: they follow from data.batch_size and the rows' lengths.",
    )
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="A config of fit; of several the later wins.")
    parser.add_class_arguments(ThinkTuner, "model")
    parser.add_argument("--data.tags.open", type=str, default="<think>", help="As in fit.")
    parser.add_argument("--data.tags.close", type=str, default="</think>", help="As in fit.")
    parser.add_argument("--data.new_tokens", type=list[str], default=[], help="As in fit.")
    parser.add_argument("--trainer.devices", type=int | str | list[int], default=1, help="Devices of a machine.")
    parser.add_argument("--trainer.num_nodes", type=int, default=1, help="Machines.")
    parser.add_argument("--trainer.strategy", type=Any, default="auto", help="ddp, or FSDP2 by configs/strategy.")
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
    devices = (count_devices(given.trainer.devices) or 1) * given.trainer.num_nodes
    sharded = "ModelParallel" in str(given.trainer.strategy)
    if not sharded and "fsdp" in str(given.trainer.strategy):
        raise UserError("trainer.strategy", "fsdp", "is not used here", "add --config configs/strategy/fsdp.yaml")
    net = shapes_of(tuner)
    counts = sorted({1, 2, 4, 8, devices} if sharded else {devices})
    nf4 = tuner.quantize == "nf4"
    show(tuner, sharded, {count: held(net, count, sharded, nf4) for count in counts})
    return 0


def show(tuner: ThinkTuner, sharded: bool, columns: dict[int, Held]) -> None:
    """One column for each number of devices."""
    how = "FSDP2" if sharded else "each device holds all"
    print(f"{tuner.name}, MB a device ({how}); activations not counted")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for devices in columns:
        table.add_column(f"{devices} device{'s' if devices > 1 else ''}", justify="right")
    for name, label in NAMES.items():
        table.add_row(label, *(f"{getattr(one, name) / 1e6:,.1f}" for one in columns.values()))
    Console().print(table)
