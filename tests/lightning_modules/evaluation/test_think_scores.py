import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch.multiprocessing as mp

from lightning_modules.evaluation import think_scores
from lightning_modules.evaluation.think_scores import AnsweredRow, rights
from lightning_modules.generation.think_response import ThinkResponse
from lightning_modules.judge.judge import Verdict, judge
from lightning_modules.ranks import from_all_ranks, share_of_rank


def response(answer: str, finished: bool = True, thoughts: tuple[str, ...] = ("a",)) -> ThinkResponse:
    return ThinkResponse("", thoughts, answer, finished, balanced=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "rung"),
    [
        ("\n\nx = 7", "x  = 7\n", "text"),
        (r"So \boxed{ 3/4 }.", "The answer is 0.75.", "number"),
        ("x = 8", "x = 7", None),
        ("", "", None),
    ],
)
def test_a_row_is_judged_once_and_an_unfinished_answer_is_never_right(
    ours: str, theirs: str, rung: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []

    def counted(written: str, reference: str) -> Verdict:
        calls.append((written, reference))
        return judge(written, reference)

    monkeypatch.setattr(think_scores, "judge", counted)
    row = AnsweredRow(0, "easy", "p", response(ours), response(theirs))
    assert [row.matches, row.matches, row.as_json()["matches"]] == [rung is not None] * 3
    assert rung in (None, row.verdict.rung)
    assert calls == [(ours, theirs)]
    unfinished = AnsweredRow(0, "easy", "p", response(ours, finished=False), response(theirs))
    assert not unfinished.matches
    assert len(calls) == 1


def test_scores_are_ratios_of_the_answered_rows() -> None:
    rows = [
        AnsweredRow(0, "easy", "p", response("7"), response("7")),
        AnsweredRow(1, "easy", "p", response("8"), response("7")),
        AnsweredRow(2, "hard", "p", response("7", thoughts=()), response("7")),
        AnsweredRow(3, "hard", "p", response("7", finished=False), response("7")),
    ]
    assert think_scores.think_scores(rows) == {
        "answered": 4, "think_format": 0.5, "thoughts": 0.75, "answer_match": 0.5, "baseline_frequent": 1.0,
        "cut": 0.25, "cut_in_thought": 0, "looped": 0, "concluded": 0, "contradicted": 0,
        "answered/easy": 2, "answer_match/easy": 0.5, "answered/hard": 2, "answer_match/hard": 0.5,
    }  # fmt: skip
    assert think_scores.think_scores([]) == {}


def test_rows_that_ask_the_same_count_once() -> None:
    rows = [
        AnsweredRow(0, "all", "p", response("7"), response("7"), rows=5),
        AnsweredRow(1, "all", "q", response("8"), response("7")),
    ]
    scores = think_scores.think_scores(rows)
    assert (scores["answered"], scores["answered_rows"], scores["answer_match"]) == (2, 6, 0.5)


def test_a_verdict_is_named_by_row_prompt_and_answer() -> None:
    one = AnsweredRow(0, "all", "p", response("7"), response("7"))
    others = [
        AnsweredRow(0, "all", "q", response("7"), response("7")),
        AnsweredRow(0, "all", "p", response("8"), response("8")),
        AnsweredRow(1, "all", "p", response("8"), response("7")),
    ]
    found = rights([one, *others])
    assert list(found.values()) == [True, True, True, False]
    assert rights([AnsweredRow(0, "easy", "p", response("8"), response("7"))]) == {one.key: False}


def test_the_json_object_has_the_documented_keys() -> None:
    row = AnsweredRow(3, "easy", "Ask", response(" 7 "), response("7\n"))
    assert row.as_json() == {
        "row": 3, "prompt": "Ask", "thoughts": ["a"], "answer": "7", "finished": True, "reference": "7",
        "matches": True, "judged_by": "text",
        "well_formed": True, "ended_by": "end", "tokens": 0, "thinking_tokens": 0, "forced_tokens": 0,
        "raw": "",
    }  # fmt: skip


def choices() -> list[AnsweredRow]:
    """Answers of every kind, to questions with four choices."""
    loop = "Wait, let me check this again. " * 20
    asked = "Which?\n(A) Ann\n(B) Bob\n(C) Cy\n(D) Di"
    written = [
        response("(A)", thoughts=("So the answer is (B).",)),
        response("(A)"),
        replace(response(f"<think>{loop}", finished=False, thoughts=()), text=f"<think>{loop}", in_thought=True),
        response("(B)", thoughts=()),
        response("I give up."),
    ]
    return [
        AnsweredRow(k, "all", f"{k}. {asked}", one, response(f"({letter})"))
        for k, (one, letter) in enumerate(zip(written, "ABAAC", strict=True))
    ]


SCORES = {
    "answered": 5, "think_format": 0.6, "cut": 0.2, "cut_in_thought": 0.2, "looped": 0.2, "concluded": 0.2,
    "contradicted": 0.2, "thoughts": 0.6, "answer_match": 0.2, "baseline_frequent": 0.6, "baseline_first": 0.6,
    "baseline_random": 0.25, "answer_letter/A": 0.4, "answer_letter/B": 0.2, "answer_letter/C": 0.0,
    "answer_letter/none": 0.4, "reference_letter/A": 0.6, "reference_letter/B": 0.2, "reference_letter/C": 0.2,
    "reference_letter/none": 0.0,
}  # fmt: skip


def test_failures_baselines_and_letters_are_scores() -> None:
    assert think_scores.think_scores(choices()) == pytest.approx(SCORES)


def _score(rank: int, port: int, folder: Path) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        rows = sorted(from_all_ranks(share_of_rank(choices())), key=lambda row: row.row)
        (folder / f"{rank}").write_text(json.dumps(think_scores.think_scores(rows)))
    finally:
        dist.destroy_process_group()


def test_two_ranks_have_the_scores_of_all_rows(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_score, args=(port, tmp_path), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}").read_text()) == pytest.approx(SCORES)
