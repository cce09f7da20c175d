"""What the run computes for some prompts, compared with what an exported folder computes.

The folder is read as a user reads it. Compared are the weights (to the bit), the ids of the chat template, the side of
the padding, the generation config, the logits of each token and the greedy text.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from errors import UserError
from lightning_modules.export.rounding import FIX, dtype_name
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.generate import generate, in_order
from lightning_modules.generation.token_choice import Request
from lightning_modules.think_tuner import ThinkTuner

log = logging.getLogger("thinkwright")
WRITTEN = 32  # most tokens of a greedy text
AGAIN = "nothing was written; run export again, and install the versions of constraints.txt if it says this again"
EQUAL = 1e-4  # largest difference of two logits that another order of sums explains, relative to the largest logit


@dataclass(frozen=True)
class Probe:
    """A conversation with the ids of its prompt in training. Without messages it has ids only."""

    messages: Sequence[Mapping[str, str]]
    ids: Sequence[int]

    def __str__(self) -> str:
        return self.messages[-1]["content"] if self.messages else f"the ids {list(self.ids)[:8]}"


@dataclass(frozen=True)
class Expected:
    """What the trained model computes for a probe."""

    probe: Probe
    written: Sequence[int]  # greedy, by the net of the run
    logits: Tensor  # (T, known ids) float32: of the prompt, and of what was written

    @property
    def ids(self) -> list[int]:
        return [*self.probe.ids, *self.written]


def run_computes(tuner: ThinkTuner, probes: Sequence[Probe]) -> list[Expected]:
    """Return what the net of the run computes. The tokens of the vocabulary that it added are among the ids."""
    assert tuner.net is not None
    tokenizer = tuner.tokenizer
    (ids,) = tokenizer.encode(["Let me think: 17 is a prime number."])
    probes = [*probes, Probe((), [*ids[:3], *tokenizer.new_ids, *ids[3:], *tokenizer.new_ids])]
    decoding = Decoding.of(tokenizer, tuner.generation_config, DecodingSettings(max_new_tokens=WRITTEN))
    responses = in_order(generate(tuner.net, tokenizer, [Request(one.ids, 0) for one in probes], decoding))
    model: Any = tuner.net.causal_lm
    found = []
    for probe, response in zip(probes, responses, strict=True):
        known = logits_of(model, [*probe.ids, *response.ids])[:, : len(tokenizer)]
        if not bool(known.isfinite().all()):
            problem, fix = "the model computes values that are not finite", "give another checkpoint: --ckpt_path last"
            raise UserError("--ckpt_path", None, problem, fix)
        found.append(Expected(probe, response.ids, known))
    return found


def logits_of(model: Any, ids: Sequence[int]) -> Tensor:
    """Return the logits after each id, (T, V) float32, on the CPU."""
    given = torch.tensor([list(ids)], device=model.get_input_embeddings().weight.device)
    training = model.training
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(input_ids=given, use_cache=False).logits[0].float().cpu()
    model.train(training)
    return logits


def difference(expected: Sequence[Expected], model: Any) -> float:
    """Return the largest difference of a logit, relative to the largest logit; infinite if one is not finite."""
    found = [logits_of(model, one.ids)[:, : one.logits.shape[1]] for one in expected]
    apart = max(float((one.logits - mine).abs().max()) for one, mine in zip(expected, found, strict=True))
    return apart / max(float(one.logits.abs().max()) for one in expected) if apart < float("inf") else float("inf")


def after_rounding(expected: Sequence[Expected], model: Any, name: str) -> list[Expected]:
    """Return what a model computes after its weights were rounded to the type of this name. Logs the difference."""
    apart = difference(expected, model)
    log.info(f"rounding the weights to {name} changes logits by {apart:.1e} of the largest at most")
    return [replace(one, logits=logits_of(model, one.ids)[:, : one.logits.shape[1]]) for one in expected]


def check_logits(expected: Sequence[Expected], model: Any, allowed: float = EQUAL) -> float:
    """Return the difference of a model that was read from a written folder. Raises UserError if more than `allowed`."""
    apart = difference(expected, model)
    if not apart <= allowed:
        problem = f"computes logits that are {apart:.3g} of the largest away from those of the trained model"
        raise UserError("export", "the written folder", problem, AGAIN)
    return apart


def check_use(
    model: Any, tokenizer: Any, expected: Sequence[Expected], dtype: torch.dtype, generation: GenerationConfig
) -> None:
    """Check a model and a tokenizer that were read from a written folder as a user reads them, and log what is equal.

    `generation` is the generation config of the run. Raises UserError for another one, for other ids in the chat
    template, padding on the right, values that are too large for `dtype` on their way through the layers, and another
    greedy text that rounding does not explain.
    """
    asked = [one for one in expected if one.probe.messages]
    if tokenizer.padding_side != "left":
        problem = f"is {tokenizer.padding_side} in the written tokenizer, and generation needs left"
        raise UserError("export", "padding_side", problem, AGAIN)
    _check_template(tokenizer, [one.probe for one in asked])
    _check_generation(model.generation_config, generation)
    apart = difference(expected, model)
    if apart == float("inf"):
        problem = "is too small for values between the layers, which are not finite"
        raise UserError("--dtype", dtype_name(dtype), problem, FIX)
    equal = sum(_writes_the_same(model, one, apart) for one in asked)
    other = (
        "" if equal == len(asked) else f"; the others part where {dtype_name(dtype)} changes the order of two tokens"
    )
    log.info(
        f"the folder was read again: {len(asked)} prompts have the ids of training, and {equal} greedy texts are those "
        f"of generate{other}"
    )


def _check_template(tokenizer: Any, probes: Sequence[Probe]) -> None:
    for probe in probes:
        for messages in _as_sent(probe.messages):
            try:
                ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            except Exception as error:  # of jinja2, or raised by the template
                raise unreadable(error) from error
            if list(ids) != list(probe.ids):
                problem = f"has other ids than in training in the written chat template: {tokenizer.decode(ids)!r}"
                raise UserError("export", str(probe), problem, AGAIN)


def _as_sent(messages: Sequence[Mapping[str, str]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the messages as clients send them: each content is a text, or a list of parts."""
    yield [dict(one) for one in messages]
    yield [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in messages]


def _check_generation(written: GenerationConfig, wanted: GenerationConfig) -> None:
    found, ours = written.to_dict(), wanted.to_dict()
    own = {"transformers_version", "_from_model_config"}  # not about generation
    if other := sorted(name for name in {*found, *ours} - own if found.get(name) != ours.get(name)):
        problem = f"is {found.get(other[0])} in the written generation config, and {ours.get(other[0])} in the run's"
        raise UserError("export", other[0], problem, AGAIN)


def _writes_the_same(model: Any, expected: Expected, apart: float) -> bool:
    """Return whether transformers' generate writes the text of the run.

    Raises UserError for another text, unless two logits that are `apart` explain its first other token.
    """
    given = torch.tensor([list(expected.probe.ids)], device=model.get_input_embeddings().weight.device)
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    with torch.no_grad():
        ids = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=WRITTEN, **greedy)
    written, wanted = ids[0, given.shape[1] :].tolist(), list(expected.written)
    if written == wanted:
        return True
    place = next((k for k, pair in enumerate(zip(written, wanted, strict=False)) if pair[0] != pair[1]), None)
    if place is not None and written[place] < expected.logits.shape[1]:
        logits = expected.logits[given.shape[1] - 1 + place]
        if logits[wanted[place]] - logits[written[place]] <= 2 * max(apart, EQUAL) * expected.logits.abs().max():
            return False
    raise UserError(
        "export", str(expected.probe), "is answered otherwise by the written folder than by generate", AGAIN
    )


def weight_hashes(model: Any, dtype: torch.dtype) -> dict[str, str]:
    """Return a hash of each weight in `dtype`."""
    import xxhash

    def bits(weight: Tensor) -> Any:
        return weight.detach().to(dtype).cpu().contiguous().reshape(-1).view(torch.uint8).numpy()

    return {name: xxhash.xxh3_128(bits(weight)).hexdigest() for name, weight in model.state_dict().items()}


def check_weights(model: Any, hashes: Mapping[str, str], dtype: torch.dtype) -> None:
    """Raise UserError if the weights that were read are not the weights that were written."""
    found = weight_hashes(model, dtype)
    if wrong := sorted(name for name in {*found, *hashes} if found.get(name) != hashes.get(name)):
        raise UserError("export", wrong[0], "is not read as it was written", AGAIN)


def read_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """Return the tokenizer of a written folder. Raises UserError if it cannot be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # any, depending on what is wrong
        raise unreadable(error) from error


def unreadable(error: Exception) -> UserError:
    """Return the error for a written folder that cannot be opened."""
    problem = f"cannot be opened ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return UserError("export", "the written folder", problem, AGAIN)
