"""Kills of fits on two processes (DDP, FSDP2) at random moments: of both, or of one, which ends the other.

The two processes start as torchrun starts them, but forked. A resumed fit ends with the bits of an undisturbed one on
two processes.
"""

import functools
import random
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.torture.forked import ROOT, Child, command
from tests.torture.kinds.kills import next_start
from tests.torture.suite import DONE, Case, ends_well, numbered
from tests.torture.world import World, difference, trained_result

KIND = "processes"
TIMES = 16  # for each strategy
WITHIN = 60.0  # seconds in which a process ends after another one was killed
TWO = ("--trainer.devices", "2", "--trainer.accumulate_grad_batches", "1")
STRATEGIES = {
    "ddp": (*TWO, "--trainer.strategy", "ddp"),
    "fsdp": (
        "--config", str(ROOT / "configs" / "strategy" / "fsdp.yaml"), "--config", "config.yaml", *TWO,
        "--trainer.strategy.init_args.data_parallel_size", "2", "--model.dtype", "float32",
        "--trainer.precision", "32-true",
    ),
}  # fmt: skip


def cases(world: World) -> list[Case]:
    return numbered(KIND, _checks(world))


def _checks(world: World) -> Iterator[tuple[str, Callable[[], None]]]:
    for strategy in STRATEGIES:
        for seed in range(TIMES):
            words = "one is killed" if seed % 2 else "both are killed"
            yield f"{strategy}, {words}, {seed}", functools.partial(_check, world, strategy, seed)


def _check(world: World, strategy: str, seed: int) -> None:
    right, seconds = undisturbed(world, strategy)
    rng = random.Random(f"{strategy} {seed}")
    with world.copy("fresh") as folder:
        ranks = start(folder, strategy)
        if seed % 2:  # before training begins, the program that started the processes ends them
            while not any(folder.glob("runs/*/*/checkpoints/*.ckpt")) and ranks[0].lives(0.02):
                pass
            seconds /= 2
        ranks[0].lives(rng.uniform(0.1, 1.0) * seconds)
        killed = [rng.choice(ranks)] if seed % 2 else ranks
        for rank in killed:
            rank.send(signal.SIGKILL)
        for rank in ranks:
            rank.end(WITHIN)  # raises TimeoutError
        for ended in [rank.end() for rank in start(folder, strategy)]:
            ends_well(ended, DONE)
        differs = difference(trained_result(folder, ended), right)
        assert not differs, f"another result than that of an undisturbed fit: {differs}"
        assert not world.leftovers(folder), world.leftovers(folder)


def undisturbed(world: World, strategy: str) -> tuple[object, float]:
    """The result of a fit that nobody disturbed, and its duration."""

    def train() -> tuple[object, float]:
        with world.copy("fresh") as folder:
            ends = [rank.end() for rank in start(folder, strategy)]
            for ended in ends:
                ends_well(ended, DONE)
            return trained_result(folder, ends[0]), ends[0].seconds

    result, seconds = world.once(f"two processes, {strategy}", train)
    return result, seconds


def start(folder: Path, strategy: str) -> list[Child]:
    """Start the next fit of a user in this folder, on two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = {
        "TORCHELASTIC_RUN_ID": "torture", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "NODE_RANK": "0",
    }  # fmt: skip
    args = (*next_start(folder), *STRATEGIES[strategy])
    return [
        Child(command(args, functools.partial(_become, k)), folder, launch | {"RANK": str(k), "LOCAL_RANK": str(k)})
        for k in range(2)
    ]


def _become(rank: int) -> None:
    """Lightning reads the rank when it is imported, which was before the fork."""
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only.rank = rank  # type: ignore[attr-defined]
