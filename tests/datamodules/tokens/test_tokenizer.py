import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.text.example import parse_example
from datamodules.text.malformed import MalformedPolicy
from datamodules.text.segments import Role, Segment, render
from datamodules.text.steps import StepSettings
from datamodules.text.tags import Tags
from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import PROBES, SEPARATOR, ThinkTokenizer
from errors import UserError
from tests.conftest import TEMPLATE, TINY, raw_example

TRICKY = "a <think> b </think> c <|im_end|> <|im_start|>system\n<|endoftext|>"


@pytest.fixture(scope="module")
def tiny() -> ThinkTokenizer:
    return ThinkTokenizer.load(str(TINY))


@pytest.fixture(scope="module")
def qwen(qwen_tokenizer: Path) -> ThinkTokenizer:
    return ThinkTokenizer.load(str(qwen_tokenizer))


def test_the_tags_are_two_new_ordinary_tokens_after_the_vocabulary(qwen: ThinkTokenizer) -> None:
    assert qwen.new_ids == [151646, 151647] == [qwen.open_id, qwen.close_id]
    assert len(qwen) == 151648
    assert qwen.full.decode([qwen.open_id, qwen.close_id], skip_special_tokens=True) == "<think></think>"
    assert qwen.end_id == 151645


def test_the_embedded_tokenizer_splits_text_like_qwens(tiny: ThinkTokenizer) -> None:
    pieces = [tiny.decode([i]) for i in tiny.encode(["Solve 2x + 135 = 25"])[0]]
    assert "".join(pieces) == "Solve 2x + 135 = 25"
    assert [piece for piece in pieces if piece.strip().isdigit()] == list("213525")
    assert tiny.full.convert_tokens_to_ids("<|im_end|>") == tiny.end_id
    assert len(tiny) < 640  # there is room in the matrix, as in Qwen's


def test_tags_and_control_tokens_in_a_text_stay_text(qwen: ThinkTokenizer, tiny: ThinkTokenizer) -> None:
    for tokenizer in (qwen, tiny):
        ids = tokenizer.encode([TRICKY])[0]
        assert tokenizer.decode(ids) == TRICKY
        assert not set(ids) & set(tokenizer.full.added_tokens_decoder)


def test_other_texts_get_the_ids_that_transformers_gives(qwen: ThinkTokenizer, r1_rows: list[dict[str, str]]) -> None:
    texts = [row["instruction"] for row in r1_rows[::10]]
    assert qwen.encode(texts) == qwen.full(texts, add_special_tokens=False).input_ids


def test_a_row_is_the_sequence_of_its_segments(qwen: ThinkTokenizer) -> None:
    row = {"instruction": "Say <think>", "response": "<think>\nA is b. So c.\n</think>\n\nx = 2"}
    segments = render(parse_example(raw_example(row, 0)), TEMPLATE, StepSettings())
    ((ids, roles),) = qwen.encoder.encode_rows([segments])
    by_role = [(Role(role).name, qwen.decode([i])) for i, role in zip(ids.tolist(), roles.tolist(), strict=True)]
    supervised = [piece for piece in by_role if piece[0] != "PROMPT"]
    assert supervised == [
        *(
            ("TAG_OPEN", "<think>"),
            ("THOUGHT", "A"),
            ("THOUGHT", " is"),
            ("THOUGHT", " b"),
            ("THOUGHT", "."),
            ("TAG_CLOSE", "</think>"),
        ),
        *(("TAG_OPEN", "<think>"), ("THOUGHT", "So"), ("THOUGHT", " c"), ("THOUGHT", "."), ("TAG_CLOSE", "</think>")),
        *(
            ("ANSWER", "\n\n"),
            ("ANSWER", "x"),
            ("ANSWER", " ="),
            ("ANSWER", " "),
            ("ANSWER", "2"),
            ("END", "<|im_end|>"),
        ),
    ]
    assert list(ids).count(qwen.open_id) == 2


@given(instruction=st.text(max_size=30), response=st.text(max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_the_prompt_has_the_same_ids_in_training_and_in_generation(
    tiny: ThinkTokenizer, instruction: str, response: str
) -> None:
    if not instruction.strip() or not response.strip() or "think>" in response:
        return
    row = {"instruction": instruction, "response": response}
    parsed = parse_example(
        raw_example(row, 0), policy=MalformedPolicy.of("repair", {"no_thought": "keep", "damaged": "keep"})
    )
    ((ids, roles),) = tiny.encoder.encode_rows([render(parsed, TEMPLATE, StepSettings())])
    asked = tiny.encode_prompts([TEMPLATE.prompt(instruction)])[0]
    assert ids[: len(asked)].tolist() == asked
    assert (roles[: len(asked)] == Role.PROMPT).all()
    assert (roles[len(asked) :] != Role.PROMPT).all()


def test_a_model_with_the_tags_keeps_its_own_tokens(tmp_path: Path, tiny: ThinkTokenizer) -> None:
    import shutil

    shutil.copytree(TINY, tmp_path / "model")
    tiny.full.save_pretrained(tmp_path / "model")
    again = ThinkTokenizer.load(str(tmp_path / "model"))
    assert again.new_ids == []
    assert (again.open_id, again.close_id) == (tiny.open_id, tiny.close_id)
    assert again.decode(again.encode([TRICKY])[0]) == TRICKY
    assert again.open_id not in again.encode([TRICKY])[0]


def test_a_beginning_of_text_token_comes_first_if_the_tokenizer_adds_one(tiny: ThinkTokenizer) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    full = AutoTokenizer.from_pretrained(TINY)
    full.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", full.convert_tokens_to_ids("<|endoftext|>"))]
    )
    tokenizer = ThinkTokenizer(full)
    assert tokenizer.prefix_ids == [full.convert_tokens_to_ids("<|endoftext|>")]
    template = load_template("{{ instruction }}", None, tokenizer)
    assert tokenizer.encode_prompts([template.prompt("x")])[0] == [*tokenizer.prefix_ids, *tiny.encode(["x"])[0]]


def test_any_pair_of_tags_is_two_tokens(tiny: ThinkTokenizer) -> None:
    tokenizer = ThinkTokenizer.load(str(TINY), None, Tags("[[reason", "reason]]"))
    assert tokenizer.new_ids == [tokenizer.open_id, tokenizer.close_id] == tiny.new_ids
    assert tokenizer.decode(tokenizer.new_ids) == "[[reasonreason]]"
    assert tokenizer.fingerprint != tiny.fingerprint


def test_the_encoder_works_in_another_process(tiny: ThinkTokenizer) -> None:
    import pickle

    row = {"instruction": "Say <think>", "response": "<think>A is b. So c.</think>2"}
    segments = render(parse_example(raw_example(row, 0)), TEMPLATE, StepSettings())
    for ours, theirs in zip(
        tiny.encoder.encode_rows([segments])[0],
        pickle.loads(pickle.dumps(tiny.encoder)).encode_rows([segments])[0],
        strict=True,
    ):
        assert ours.tolist() == theirs.tolist()


texts_with_separators = st.text(alphabet=[*"ab .\n<>", SEPARATOR, "é", "好"], max_size=12)


@given(
    st.lists(
        st.lists(
            st.one_of(
                st.sampled_from([Segment(Role.TAG_OPEN), Segment(Role.TAG_CLOSE), Segment(Role.END)]),
                st.just(Segment(Role.PROMPT, "<|im_start|>", control=True)),
                st.builds(
                    Segment,
                    st.sampled_from([Role.PROMPT, Role.THOUGHT, Role.ANSWER]),
                    texts_with_separators,
                    st.just(False),
                ),
            ),
            max_size=6,
        ),
        max_size=3,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_rows_encoded_together_equal_their_texts_encoded_alone(tiny: ThinkTokenizer, rows: list[list[Segment]]) -> None:
    encoder = tiny.encoder
    for row, (ids, roles) in zip(rows, encoder.encode_rows(rows), strict=True):
        expected: list[tuple[int, Role]] = []
        for role, text, control in row:
            if control:
                pieces = [encoder.control_ids[text]]
            else:
                pieces = [encoder.fixed[role]] if role in encoder.fixed else encoder.encode([text])[0]
            expected += [(i, role) for i in pieces]
        assert list(zip(ids.tolist(), roles.tolist(), strict=True)) == expected
        assert ids.dtype == np.dtype(np.int32)
        assert roles.dtype == np.dtype(np.int8)


def test_added_tokens_of_white_space_stay_tokens(tiny: ThinkTokenizer) -> None:
    from transformers import AutoTokenizer

    full = AutoTokenizer.from_pretrained(TINY)
    full.add_tokens(["        "])
    tokenizer = ThinkTokenizer(full)
    text = "a        b"
    assert tokenizer.encode([text])[0] == full(text, add_special_tokens=False).input_ids
    assert tokenizer.encode([text])[0] != tiny.encode([text])[0]
    ((ids, _),) = tokenizer.encoder.encode_rows([[Segment(Role.THOUGHT, text), Segment(Role.ANSWER, "b")]])
    assert ids.tolist() == [*tokenizer.encode([text])[0], *tokenizer.encode(["b"])[0]]


WITH_STEP = ("<step>", "[mol]")


@pytest.fixture(scope="module")
def tiny_with_tokens() -> ThinkTokenizer:
    return ThinkTokenizer.load(str(TINY), None, Tags(), WITH_STEP)


def test_new_tokens_are_one_id_in_every_text_and_tags_stay_text(
    tiny_with_tokens: ThinkTokenizer, tiny: ThinkTokenizer
) -> None:
    tokenizer = tiny_with_tokens
    assert tokenizer.new_ids[:2] == tiny.new_ids == [tokenizer.open_id, tokenizer.close_id]
    assert tokenizer.new_ids[2:] == [tokenizer.close_id + 1, tokenizer.close_id + 2]
    row = [
        Segment(Role.PROMPT, "a<step> <think> [mol]"),
        Segment(Role.THOUGHT, "[mol]b"),
        Segment(Role.ANSWER, "<step>"),
    ]
    ((ids, roles),) = tokenizer.encoder.encode_rows([row])
    pieces = [tokenizer.decode([i]) for i in ids.tolist()]
    assert [piece for piece in pieces if piece in WITH_STEP] == ["<step>", "[mol]", "[mol]", "<step>"]
    assert "<think>" not in pieces
    assert tokenizer.decode(ids.tolist()) == "".join(segment.text for segment in row)
    assert roles[-1] == Role.ANSWER
    assert tokenizer.encode(["a<step>b"])[0] == tokenizer.full("a<step>b", add_special_tokens=False).input_ids


def test_the_subtokens_of_each_new_token_are_kept(tiny_with_tokens: ThinkTokenizer, tiny: ThinkTokenizer) -> None:
    texts = ["<think>", "</think>", *WITH_STEP]
    assert tiny_with_tokens.subtoken_ids == tiny.encode(texts)
    assert tiny.subtoken_ids == tiny.encode(texts[:2])


@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_new_tokens_do_not_change_the_ids_of_other_text(texts: list[str]) -> None:
    with_tokens, without = (ThinkTokenizer.load(str(TINY), None, Tags(), tokens) for tokens in (WITH_STEP, ()))
    texts = [text for text in texts if not any(token in text for token in (*WITH_STEP, SEPARATOR))]
    rows = [[Segment(Role.PROMPT, text) for text in texts]]
    ((ours, _),), ((plain, _),) = (tokenizer.encoder.encode_rows(rows) for tokenizer in (with_tokens, without))
    assert ours.tolist() == plain.tolist()


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([" "], "is not a token"), (["<|im_end|>"], "is a control token"), (["a"], "is already a token of the model"),
        (["<think>"], "is part of <think>"), (["<s>", "<s>x"], "is part of <s>"),
    ],
)  # fmt: skip
def test_impossible_new_tokens_are_refused(tokens: list[str], words: str) -> None:
    with pytest.raises(UserError, match=rf"data\.new_tokens: .*{words}"):
        ThinkTokenizer.load(str(TINY), None, Tags(), tuple(tokens))


@pytest.mark.parametrize("key", ["open", "close"])
@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("<|im_end|>", "is a control token"), ("<|endoftext|>", "is a control token"),
        ("x<|im_end|>", r"contains <\|im_end\|>"), ("a", "is an ordinary token"), (SEPARATOR, "is an ordinary token"),
    ],
)  # fmt: skip
def test_a_tag_that_means_something_else_is_refused(key: str, tag: str, words: str) -> None:
    with pytest.raises(UserError, match=rf"data\.tags\.{key}: .*{words}"):
        ThinkTokenizer.load(str(TINY), None, Tags(**{key: tag}))


def edited(change: Callable[[dict[str, Any]], None]) -> ThinkTokenizer:
    """The embedded tokenizer after a change in its tokenizer.json."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads((TINY / "tokenizer.json").read_text())
    change(state)
    return ThinkTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), eos_token="<|im_end|>")
    )


def swap(items: list[Any], one: int, other: int) -> None:
    items[one], items[other] = items[other], items[one]


def swap_ids(vocab: dict[str, int], one: str, other: str) -> None:
    vocab[one], vocab[other] = vocab[other], vocab[one]


@pytest.mark.parametrize(
    "change",
    [
        lambda state: swap_ids(state["model"]["vocab"], "a", "b"),
        lambda state: state.update(normalizer=None),
        lambda state: state["model"].update(ignore_merges=True),
        lambda state: state["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\s+|\S+"),
        lambda state: state["added_tokens"][0].update(lstrip=True),
        lambda state: state["added_tokens"][0].update(special=False),
        lambda state: state["added_tokens"].append(
            dict(state["added_tokens"][0], id=len(state["model"]["vocab"]) + 3, content="<new>")
        ),
        lambda state: state["model"]["merges"].pop(),
    ],
)
def test_a_change_of_any_part_of_the_tokenizer_changes_its_fingerprint(
    change: Callable[[dict[str, Any]], None],
) -> None:
    assert edited(change).fingerprint != edited(lambda state: None).fingerprint


@given(pair=st.lists(st.integers(0, 270), min_size=2, max_size=2, unique=True))
@settings(max_examples=40, deadline=None)
def test_a_swap_of_any_two_merges_changes_the_fingerprint(pair: list[int]) -> None:
    same = edited(lambda state: None)
    other = edited(lambda state: swap(state["model"]["merges"], *(i % len(state["model"]["merges"]) for i in pair)))
    assert other.fingerprint != same.fingerprint


def test_a_fingerprint_is_the_same_after_saving_and_after_use(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    first = ThinkTokenizer(AutoTokenizer.from_pretrained(TINY))
    before = first.fingerprint
    AutoTokenizer.from_pretrained(TINY).save_pretrained(tmp_path)
    assert ThinkTokenizer(AutoTokenizer.from_pretrained(tmp_path)).fingerprint == before
    used = AutoTokenizer.from_pretrained(TINY)
    used(["a", "b c"], padding=True, truncation=True, max_length=1)
    assert ThinkTokenizer(used).fingerprint == before


def bpe(**parts: Any) -> Any:
    """A BPE tokenizer of single characters with these parts, in transformers' frame."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    characters = sorted({*"".join(PROBES), *"▁<think/>_", *bytes_to_unicode()})
    vocab = {character: k for k, character in enumerate([*characters, *(f"<0x{k:02X}>" for k in range(256))])}
    tokenizer = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.add_special_tokens([AddedToken("</s>", normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def bytes_to_unicode() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel.alphabet()


def sentencepiece_like() -> dict[str, dict[str, Any]]:
    from tokenizers import decoders, normalizers, pre_tokenizers

    byte_level = {"decoder": decoders.ByteLevel()}
    return {
        "metaspace, before each text": {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="always")},
        "metaspace, before the first text": {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="first")},
        "Llama 2's normalizer": {
            "normalizer": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        },
        "a space before each text": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True), **byte_level},
        "lower case": {
            "normalizer": normalizers.Lowercase(),
            "pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False),
            **byte_level,
        },
        "no white space": {"pre_tokenizer": pre_tokenizers.Whitespace()},
    }


@pytest.mark.parametrize("kind", sentencepiece_like())
def test_a_tokenizer_that_changes_texts_or_joins_them_with_spaces_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="cannot tokenize a text in parts"):
        ThinkTokenizer(bpe(**sentencepiece_like()[kind]))


def test_a_byte_level_tokenizer_passes_the_same_probe() -> None:
    from tokenizers import decoders, pre_tokenizers

    parts = {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False), "decoder": decoders.ByteLevel()}
    assert ThinkTokenizer(bpe(**parts)).new_ids
