from typing import Any

import pytest
import torch

from lightning_modules.checkpoints.checkpoint_file import PARTS
from lightning_modules.checkpoints.content import CONTENT_KEY, CheckpointContent
from lightning_modules.checkpoints.resume_position import ResumePosition

POSITION = ResumePosition(1, 2, 7, False, 5, 2, ("none", 32), "16 rows x 2 accumulated x 1 device")


@pytest.fixture
def content() -> CheckpointContent:
    """The content of a checkpoint in a fit."""
    model = CheckpointContent("base", None, {"lora.rank": 8}, 1, [{"losses": torch.ones(2)}], 0, None)
    return model.at(POSITION, {"rows": {"train": "digest"}})


@pytest.fixture
def checkpoint(content: CheckpointContent) -> dict[str, Any]:
    """A checkpoint with one tensor."""
    parts = {name: kind() for name, kind in PARTS.items()}
    return parts | {"state_dict": {"rows": torch.arange(4.0)}, CONTENT_KEY: content.to_dict(), "global_step": 3}
