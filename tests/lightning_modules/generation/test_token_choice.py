"""What TokenChoice does with the logits of a batch: legal tokens by their probabilities, slots, and no host waits."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.think_response import respond
from lightning_modules.generation.token_choice import Request, TokenChoice
from tests.lightning_modules.generation.drive import CPU, drive, ids_of, scripted

ALL_ON: dict[str, Any] = {
    "grammar": True, "thinking_budget": 9, "thought_budget": 6, "max_thoughts": 3, "min_thinking": 4,
    "answer_reserve": 8, "cut_message": "!", "extend": 1, "extend_text": "Hm", "loop_tokens": 2, "loop_repeats": 2,
}  # fmt: skip


def choice_of(tokenizer: ThinkTokenizer, slots: int, confidence: bool = False, **given: Any) -> TokenChoice:
    known = DecodingSettings(**{"max_new_tokens": 40} | given)
    return TokenChoice(Decoding.of(tokenizer, None, known, confidence), slots, CPU)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.6)])
def test_sampling_takes_legal_tokens_by_their_renormalized_probabilities(
    temperature: float, top_p: float, tiny_tokenizer: ThinkTokenizer
) -> None:
    """Draws from a grid hit each token as often as its probability tells."""
    draws = 2_000
    choice = choice_of(tiny_tokenizer, draws, grammar=True, temperature=temperature, top_p=top_p)
    logits = torch.randn(len(tiny_tokenizer), generator=torch.Generator().manual_seed(3)) * 4
    logits[[tiny_tokenizer.end_id, tiny_tokenizer.open_id]] = logits.max() + torch.tensor([3.0, 1.0])
    for slot in range(draws):
        choice.start(slot, Request([5, tiny_tokenizer.open_id]))
    assert choice.draws is not None
    choice.draws[:] = ((torch.arange(draws) + 0.5) / draws)[:, None]
    chosen = choice.step(logits.expand(draws, -1), torch.arange(draws))

    legal = torch.full((len(tiny_tokenizer),), -torch.inf)  # in a thought that shows nothing yet
    tags = ids_of(tiny_tokenizer, "[", "]", ".")
    controls = [tiny_tokenizer.control_ids[name] for name in ("<|im_start|>", "<|endoftext|>")]
    whole = [i for i in range(len(tiny_tokenizer)) if not 0x80 <= _first_byte(tiny_tokenizer, i) < 0xC2]
    keep = [i for i in whole if i not in (*tags, *controls) and _first_byte(tiny_tokenizer, i) < 0xF5]
    legal[keep] = logits[keep]
    probabilities, order = (legal / temperature).softmax(-1).sort(descending=True)
    kept = probabilities.cumsum(0) - probabilities < top_p
    expected = dict(zip(order[kept].tolist(), (probabilities[kept] / probabilities[kept].sum()).tolist(), strict=True))
    counts = Counter(chosen.tolist())
    assert counts.keys() <= expected.keys()
    assert max(abs(counts[token] - draws * p) for token, p in expected.items()) < 1.5


def _first_byte(tokenizer: ThinkTokenizer, token: int) -> int:
    from lightning_modules.generation.token_text import _token_bytes

    return (_token_bytes(tokenizer)[token] or b"\xff")[0]


def test_what_masks_took_away_is_told(tiny_tokenizer: ThinkTokenizer) -> None:
    """Half of the first step's probability is for the opening tag, a fifth of the second's for the end. What the model
    wanted in place of the closing tag, which is forced, does not count."""
    choice = choice_of(tiny_tokenizer, 1, grammar=True, max_new_tokens=4, thinking_budget=1)
    choice.start(0, Request([5]))
    opening, closing, end, x = ids_of(tiny_tokenizer, "[", "]", ".", "x")
    for liked in ({opening: 0.5, x: 0.5}, {end: 0.2, x: 0.8}, {end: 0.9, x: 0.1}, {x: 1.0}):
        logits = torch.full((1, len(tiny_tokenizer)), -torch.inf)
        for token, probability in liked.items():
            logits[0, token] = torch.tensor(probability).log()
        choice.step(logits, torch.tensor([0]))
    written = choice.written(0)
    assert written.ids == [opening, x, closing, x]
    assert written.masked == pytest.approx(1 - 0.5 * 0.8)
    assert respond(written, tiny_tokenizer, [end]).as_json("")["masked"] == pytest.approx(0.6)


def test_confidence_is_the_mean_log_probability_of_the_tokens_that_the_model_chose(
    tiny_tokenizer: ThinkTokenizer,
) -> None:
    logits = scripted(tiny_tokenizer, "[", "a", "b", "_", "x")
    expected = [float(logits(0, step).log_softmax(-1).max()) for step in (0, 1, 2, 4)]
    end = float(logits(0, 5).log_softmax(-1).max())
    choice = choice_of(tiny_tokenizer, 1, confidence=True, thinking_budget=2)
    (written,) = drive(tiny_tokenizer, logits, choice=choice, thinking_budget=2)
    assert written.confidence == pytest.approx((sum(expected) + end) / 5)
    assert written.forced == [False, False, False, True, False, False]


def test_confidence_and_masks_cost_nothing_unless_asked_for(tiny_tokenizer: ThinkTokenizer) -> None:
    choice = choice_of(tiny_tokenizer, 2, max_new_tokens=3)
    assert (choice.control, choice.confidence, choice.forced.numel()) == (None, None, 0)
    (written,) = drive(tiny_tokenizer, scripted(tiny_tokenizer, "]", "[", "."), choice=choice, max_new_tokens=3)
    assert (written.masked, written.confidence, written.cut) == (None, None, None)
    assert written.ids == ids_of(tiny_tokenizer, "]", "[", ".")  # nothing is masked
    assert "masked" not in respond(written, tiny_tokenizer, [tiny_tokenizer.end_id]).as_json("")


def test_a_slot_that_is_used_again_has_no_memory(tiny_tokenizer: ThinkTokenizer) -> None:
    first, second = (
        scripted(tiny_tokenizer, "[", *"abababab", "_", "x", "]", "[", "c"),
        scripted(tiny_tokenizer, "[", *"abcde", "]", "x", "y"),
    )
    for given in (ALL_ON, ALL_ON | {"temperature": 1.0}):
        choice = choice_of(tiny_tokenizer, 1, confidence=True, **given)
        drive(tiny_tokenizer, first, choice=choice, prompts=[[5, tiny_tokenizer.open_id]], **given)
        again = drive(tiny_tokenizer, second, choice=choice, **given)
        fresh = choice_of(tiny_tokenizer, 1, confidence=True, **given)
        assert again == drive(tiny_tokenizer, second, choice=fresh, **given)


def test_a_row_that_ended_stays_as_it_was(tiny_tokenizer: ThinkTokenizer) -> None:
    """The first row ends within a thought, and others go on: it is not cut while they do."""
    short, long = scripted(tiny_tokenizer, "[", "a", "."), scripted(tiny_tokenizer, "[", *"abcdefgh", *"x" * 30)

    def logits(row: int, step: int) -> Tensor:
        return (short, long)[row](row, step)

    given: dict[str, Any] = {"thinking_budget": 4, "max_new_tokens": 12}
    both = drive(tiny_tokenizer, logits, (0, 1), **given)
    assert both[0] == drive(tiny_tokenizer, short, (0,), **given)[0]
    assert (both[0].cut, both[0].ids) == (None, ids_of(tiny_tokenizer, "[", "a", "."))
    assert both[1].cut == "budget"


class NoWaits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails if the host asks for a value on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal"), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("given", [{}, ALL_ON, ALL_ON | {"temperature": 1.0, "top_p": 0.9}])
def test_a_step_makes_the_host_wait_for_nothing(given: dict[str, Any], tiny_tokenizer: ThinkTokenizer) -> None:
    choice = choice_of(tiny_tokenizer, 3, confidence=True, **given)
    for slot in range(3):
        choice.start(slot, Request([5], seed=slot))
    slots, logits = torch.arange(3), torch.randn(3, 2, len(tiny_tokenizer))
    with NoWaits():  # type: ignore[no-untyped-call]
        for step in range(2):
            choice.step(logits[:, step], slots)
    with pytest.raises(AssertionError), NoWaits():  # type: ignore[no-untyped-call]
        bool(choice.ended.any())


@pytest.mark.parametrize(("message", "length"), [("", 0), (" I must stop.", 10)])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 9, 10, 11, 12, 20, 21, 22])
def test_a_request_with_a_low_limit_still_gets_an_answer(
    limit: int, message: str, length: int, tiny_tokenizer: ThinkTokenizer
) -> None:
    """Where the reserve leaves no room for a thought and the message, the answer comes at once."""
    given: dict[str, Any] = {"grammar": True, "answer_reserve": 8, "cut_message": message}
    for prompt in ([5], [5, tiny_tokenizer.open_id]):
        logits = scripted(tiny_tokenizer, "[", *"abcdefghijkl")
        (written,) = drive(tiny_tokenizer, logits, prompts=[prompt], limit=limit, **given)
        response = respond(written, tiny_tokenizer, [tiny_tokenizer.end_id])
        assert len(written.ids) <= limit and response.balanced
        assert response.answer.strip() or (written.opened and limit == 1)
        assert bool(response.thoughts) == (written.opened or limit >= 3 + 8 + length)
