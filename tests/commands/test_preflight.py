import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from commands.preflight import check_hardware, check_launch, count_devices, find_configs
from errors import UserError

DEFAULTS = {"accelerator": "auto", "devices": "auto", "precision": "32-true", "strategy": "auto", "num_nodes": 1}


def check(gpus: int, dtype: str = "float32", quantize: str | None = None, **trainer: Any) -> None:
    check_hardware(SimpleNamespace(**DEFAULTS | trainer), dtype, gpus, quantize)


SHARDED = SimpleNamespace(class_path="ModelParallelStrategy", init_args=SimpleNamespace(data_parallel_size=4))
RECIPE = {"accelerator": "gpu", "devices": 4, "precision": "16-mixed", "strategy": "ddp"}


@pytest.mark.parametrize(
    ("gpus", "trainer", "message"),
    [
        (0, RECIPE, r"trainer\.accelerator: 'gpu' asks for 4 GPU.*none.*configs/hardware/cpu\.yaml"),
        (1, RECIPE, r"trainer\.devices: '4' asks for more than the 1 GPU.*configs/hardware/one_gpu\.yaml"),
        (2, RECIPE, r"trainer\.devices: '4' asks for more than the 2 GPU.*[Ss]et trainer\.devices 2"),
        (1, RECIPE | {"devices": "0,1"}, r"trainer\.devices"),
        (0, {"precision": "16-mixed"}, r"trainer\.precision: '16-mixed' needs a GPU.*cpu\.yaml"),
        (2, {"accelerator": "cpu", "precision": "16-mixed"}, r"trainer\.precision: '16-mixed' needs a GPU"),
        (0, {"precision": "16-true"}, r"trainer\.precision: '16-true' would hold the trained weights.*model\.dtype"),
        (4, {"precision": "64-true"}, r"trainer\.precision: '64-true' is not a precision.*32-true"),
        (4, {"precision": "transformer-engine"}, r"trainer\.precision: 'transformer-engine' is not a precision"),
        (4, {"precision": "bf16-true"}, r"trainer\.precision: 'bf16-true' would hold"),
        (0, {"dtype": "float16"}, r"model\.dtype: 'float16' is slow or not supported on a CPU.*cpu\.yaml"),
        (4, RECIPE | {"strategy": "fsdp"}, r"trainer\.strategy: 'fsdp'.*configs/strategy/fsdp\.yaml"),
        (2, {"devices": 2, "strategy": "ddp_spawn"}, r"trainer\.strategy: 'ddp_spawn' is for notebooks.*ddp"),
        (2, {"devices": 2, "strategy": SHARDED}, r"data_parallel_size: '4' is not the number of devices, 2"),
        (
            4,
            RECIPE | {"strategy": "fsdp", "quantize": "nf4"},
            r"model\.quantize: 'nf4' cannot be sharded.*trainer\.strategy ddp",
        ),
        (4, {"devices": 4, "strategy": SHARDED, "quantize": "nf4"}, r"model\.quantize: 'nf4'.*trainer\.strategy ddp"),
        (4, {"devices": 4, "num_nodes": 2, "strategy": SHARDED}, r"'4' is not the number of devices, 8. Set it to 8"),
    ],
)
def test_what_the_machine_cannot_do_is_said_with_the_overlay_that_helps(
    gpus: int, trainer: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(gpus, **trainer)


@pytest.mark.parametrize(
    ("gpus", "trainer"),
    [
        (4, RECIPE),
        (4, RECIPE | {"quantize": "nf4"}),
        (0, {}),
        (8, RECIPE),
        (1, {"precision": "16-mixed"}),
        (1, {"dtype": "float16"}),
        (4, {"devices": 4, "strategy": SHARDED}),
        (2, {"devices": 2, "num_nodes": 2, "strategy": SHARDED}),
        (2, {"devices": -1}),
    ],
)
def test_what_it_can_do_passes(gpus: int, trainer: dict[str, Any]) -> None:
    check(gpus, **trainer)


def test_devices_are_counted_in_all_their_forms() -> None:
    assert [count_devices(form) for form in (4, "4", [0, 1], "0,1,", "auto", -1, "-1")] == [4, 4, 2, 2, 0, 0, 0]


def launch(gpus: int, environ: dict[str, str], **trainer: Any) -> None:
    check_launch(SimpleNamespace(**DEFAULTS | trainer), gpus, environ)


def torchrun(machines: int, each: int) -> dict[str, str]:
    return {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": str(machines * each), "LOCAL_WORLD_SIZE": str(each)}


def srun(machines: int, each: int) -> dict[str, str]:
    return {
        "SLURM_JOB_NAME": "fit", "SLURM_STEP_ID": "0", "SLURM_NTASKS": str(machines * each),
        "SLURM_NTASKS_PER_NODE": str(each), "SLURM_NNODES": str(machines),
    }  # fmt: skip


@pytest.mark.parametrize("started", [torchrun, srun])
def test_another_number_of_processes_than_the_trainer_asks_for_is_refused(started: Any) -> None:
    """Left alone, each process would train by itself, or wait for others that never come."""
    with pytest.raises(UserError, match=r"trainer\.devices: '1' is not the number of processes .*, 4\. Set it to 4"):
        launch(0, started(1, 4), devices=1)
    with pytest.raises(UserError, match=r"trainer\.devices: 'auto' .* on each machine, 2"):
        launch(4, started(2, 2), num_nodes=2)
    with pytest.raises(UserError, match=r"trainer\.num_nodes: '1' is not the number of machines .*, 2\. Set it to 2"):
        launch(4, started(2, 4), **RECIPE)
    launch(4, started(2, 4), **RECIPE, num_nodes=2)
    launch(4, started(2, 4), num_nodes=2)
    launch(0, started(2, 1), devices=1, num_nodes=2)


def test_a_job_of_several_tasks_that_srun_did_not_start_is_told_so() -> None:
    """As the first of them it would wait for the others for half an hour."""
    batch = {key: value for key, value in srun(2, 1).items() if key != "SLURM_STEP_ID"}
    with pytest.raises(UserError, match=r"the job has 2 tasks.*Put srun before the command"):
        launch(0, batch, devices=1, num_nodes=2)
    launch(0, batch | {"SLURM_JOB_NAME": "interactive"}, devices=2)
    alone = {key: value for key, value in srun(1, 2).items() if key != "SLURM_NTASKS_PER_NODE"}
    with pytest.raises(UserError, match=r"--ntasks alone.*--ntasks-per-node"):
        launch(0, alone, devices=2)


def test_the_config_of_a_run_on_several_machines_is_not_waited_for_on_one() -> None:
    """`validate` takes the run's config, with its num_nodes."""
    with pytest.raises(UserError, match=r"trainer\.num_nodes: '2'.*torchrun or srun.*or set trainer\.num_nodes 1"):
        launch(0, {}, num_nodes=2)
    launch(0, {}, num_nodes=1)
    launch(0, {"MASTER_ADDR": "10.0.0.1", "NODE_RANK": "1"}, num_nodes=2)


def test_what_is_there_instead_of_a_config_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    said = {
        str(tmp_path): "is a folder",
        str(tmp_path / "pipe"): "is a pipe or a device",
        "n" * 300: "cannot be opened",
    }
    for name, problem in said.items():
        with pytest.raises(UserError, match=f"--config: '{name[:50]}.*{problem}"):
            find_configs(["--config", name], needed=True)
    for args in (["--config"], ["--config="], ["--config", "--data.seed", "3"]):
        with pytest.raises(UserError, match="--config: is given without a file"):
            find_configs(args, needed=True)
