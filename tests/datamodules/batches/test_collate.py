import numpy as np
import torch

from datamodules.batches.collate import collate
from datamodules.prepare.token_dataset import TokenExample
from datamodules.text.segments import Role

PROMPT, OPEN, THOUGHT, CLOSE, ANSWER, END = (int(role) for role in Role)


def example(ids: list[int], roles: list[int], index: int = 0) -> TokenExample:
    return TokenExample(index, str(index), "easy", np.array(ids, np.int32), np.array(roles, np.int8))


def test_targets_are_the_supervised_tokens_and_each_follows_the_position_that_predicts_it() -> None:
    batch = collate(
        [
            example([5, 6, 1, 7, 2, 8, 9], [PROMPT, PROMPT, OPEN, THOUGHT, CLOSE, ANSWER, END], 3),
            example([5, 6, 8, 9], [PROMPT, PROMPT, ANSWER, END], 4),
        ],
        7,
        pad_id=0,
    )
    assert batch.input_ids.tolist() == [[5, 6, 1, 7, 2, 8, 9, 5, 6, 8, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3]]
    assert (batch.starts.tolist(), batch.lengths, batch.starts.dtype) == ([0, 7, 11], [7, 4], torch.int32)
    assert batch.token_ids() == [[5, 6, 1, 7, 2, 8, 9], [5, 6, 8, 9]]
    assert batch.targets.tolist() == [1, 7, 2, 8, 9, 8, 9]
    assert batch.target_roles.tolist() == [OPEN, THOUGHT, CLOSE, ANSWER, END, ANSWER, END]
    flat = batch.input_ids.flatten()
    assert torch.equal(flat[batch.predict_from + 1], batch.targets)
    assert (batch.prompt_lengths, batch.indices, batch.groups, batch.step_tokens) == (
        [2, 2],
        [3, 4],
        ["easy", "easy"],
        7,
    )


def test_prompt_tokens_between_two_answers_are_no_targets() -> None:
    batch = collate([example([5, 8, 9, 6, 7, 8, 9], [PROMPT, ANSWER, END, PROMPT, PROMPT, ANSWER, END])], 4, pad_id=0)
    assert (batch.predict_from.tolist(), batch.targets.tolist()) == ([0, 1, 4, 5], [8, 9, 8, 9])
    assert batch.prompt_lengths == [1]


def test_a_batch_without_examples_has_one_token_and_no_targets() -> None:
    batch = collate([], 9, pad_id=3)
    assert batch.input_ids.tolist() == [[3]]
    assert (batch.position_ids.tolist(), batch.starts.tolist(), batch.lengths) == ([[0]], [0, 1], [1])
    assert batch.targets.shape == batch.predict_from.shape == (0,)
    assert batch.targets.dtype == torch.int64


def test_the_first_token_of_an_example_is_never_a_target() -> None:
    batch = collate([example([8, 9], [ANSWER, END])], 1, pad_id=0)
    assert batch.targets.tolist() == [9]


def test_moving_a_batch_moves_its_tensors_and_keeps_the_rest() -> None:
    batch = collate([example([5, 8, 9], [PROMPT, ANSWER, END], 3)], 2, pad_id=0)
    moved = batch.to("meta")
    assert moved.input_ids.device.type == moved.targets.device.type == "meta"
    assert (moved.indices, moved.step_tokens) == ([3], 2)
