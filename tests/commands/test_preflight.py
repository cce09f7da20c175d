from types import SimpleNamespace
from typing import Any

import pytest

from commands.preflight import check_hardware, count_devices
from errors import UserError

DEFAULTS = {"accelerator": "auto", "devices": "auto", "precision": "32-true", "strategy": "auto"}


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
        (4, {"precision": "bf16-true"}, r"trainer\.precision: 'bf16-true' would hold"),
        (0, {"dtype": "float16"}, r"model\.dtype: 'float16' is slow or not supported on a CPU.*cpu\.yaml"),
        (4, RECIPE | {"strategy": "fsdp"}, r"trainer\.strategy: 'fsdp'.*configs/strategy/fsdp\.yaml"),
        (2, {"devices": 2, "strategy": "ddp_spawn"}, r"trainer\.strategy: 'ddp_spawn' is for notebooks.*ddp"),
        (2, {"devices": 2, "strategy": SHARDED}, r"data_parallel_size: '4' is not the number of devices, 2"),
        (
            4,
            RECIPE | {"strategy": "fsdp", "quantize": "nf4"},
            r"model\.quantize: 'nf4' is for .* not sharded",
        ),
        (4, {"devices": 4, "strategy": SHARDED, "quantize": "nf4"}, r"model\.quantize: 'nf4'.*trainer\.strategy ddp"),
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
        (2, {"devices": -1}),
    ],
)
def test_what_it_can_do_passes(gpus: int, trainer: dict[str, Any]) -> None:
    check(gpus, **trainer)


def test_devices_are_counted_in_all_their_forms() -> None:
    assert [count_devices(form) for form in (4, "4", [0, 1], "0,1,", "auto", -1, "-1")] == [4, 4, 2, 2, 0, 0, 0]
