"""A checkpoint says what it holds, and is refused in one line if this version cannot read it."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import UserError
from lightning_modules.checkpoints.checkpoint_file import read_checkpoint, write_checkpoint
from lightning_modules.checkpoints.content import CONTENT_KEY, FORMAT, CheckpointContent


def refused(checkpoint: dict[str, Any], path: Path) -> str:
    """The message about a file whose checksum is right."""
    write_checkpoint(checkpoint, path)
    with pytest.raises(UserError) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_content_is_the_same_after_writing_and_reading(
    checkpoint: dict[str, Any], content: CheckpointContent, tmp_path: Path
) -> None:
    write_checkpoint(checkpoint, tmp_path / "last.ckpt")
    again = CheckpointContent.of(read_checkpoint(tmp_path / "last.ckpt"))
    for field in fields(CheckpointContent):
        if field.name != "train_loss":
            assert getattr(again, field.name) == getattr(content, field.name), field.name
    assert torch.equal(again.train_loss[0]["losses"], content.train_loss[0]["losses"])


def test_a_newer_format_is_refused_with_the_version_that_wrote_it(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    checkpoint[CONTENT_KEY] |= {"format": FORMAT + 1, "version": "7.8.9", "a new field": 1}
    message = refused(checkpoint, tmp_path / "last.ckpt")
    assert f"has format {FORMAT + 1}, written by version 7.8.9; version " in message
    assert message.endswith(f"reads {FORMAT}. Update the program, or train anew without --ckpt_path.")


@pytest.mark.parametrize("older", [{}, {"format": FORMAT - 1, "version": "0.0.1"}], ids=["no number", "lower number"])
def test_an_older_format_is_refused_with_a_way_out(
    older: dict[str, Any], checkpoint: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint[CONTENT_KEY] = {"base": "base", **older}
    message = refused(checkpoint, tmp_path / "last.ckpt")
    assert f"has format {older.get('format', 0)}, written by version {older.get('version', 'unknown')}" in message
    assert message.endswith("Resume with the version that wrote it, or train anew without --ckpt_path.")


@pytest.mark.parametrize("name", [field.name for field in fields(CheckpointContent) if field.name != "format"])
def test_a_missing_field_is_named(name: str, checkpoint: dict[str, Any], tmp_path: Path) -> None:
    del checkpoint[CONTENT_KEY][name]
    assert f"lacks a field of format {FORMAT} ('{name}')" in refused(checkpoint, tmp_path / "last.ckpt")


def test_a_missing_field_of_the_position_is_named(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    del checkpoint[CONTENT_KEY]["resume_position"]["accumulate"]
    assert "('accumulate')" in refused(checkpoint, tmp_path / "last.ckpt")


@pytest.mark.parametrize("foreign", [{"state_dict": {}}, {CONTENT_KEY: "text"}, {CONTENT_KEY: None}, ["a list"]])
def test_a_foreign_file_with_a_right_checksum_is_refused(foreign: Any, tmp_path: Path) -> None:
    assert "was not written by this program" in refused(foreign, tmp_path / "last.ckpt")
