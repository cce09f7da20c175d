from pathlib import Path

import pytest

from datamodules.rows.folders import LocalFiles, local_files
from errors import UserError

CARD = """---
license: mit
configs:
- config_name: think
  data_files:
  - {split: train, path: think/train-*}
  - {split: test, path: [think/test.jsonl, more/*.jsonl]}
- config_name: plain
  default: true
  data_files: plain.jsonl
---
# A set
"""


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")


def chosen(folder: Path, split: str = "train", config: str | None = None) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in local_files(str(folder), split, config).paths]


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["train.jsonl", "test.jsonl"], "train", ["train.jsonl"]),
        (["train.jsonl", "test.jsonl"], "test", ["test.jsonl"]),
        (["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001.jsonl"],
         "train", ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"]),
        (["train/a.jsonl", "train/b.jsonl", "dev/a.jsonl"], "validation", ["dev/a.jsonl"]),
        (["train/a.jsonl", "dev/a.jsonl"], "dev", ["dev/a.jsonl"]),
        (["my_train_v2.jsonl.gz", "my-valid.jsonl.gz"], "validation", ["my-valid.jsonl.gz"]),
        (["a.jsonl", "deep/b.jsonl"], "train", ["a.jsonl", "deep/b.jsonl"]),
        (["part-00000-of-00002.jsonl", "part-00001-of-00002.jsonl"], "train",
         ["part-00000-of-00002.jsonl", "part-00001-of-00002.jsonl"]),
        (["data/think-00000-of-00001.jsonl", "data/no_think-00000-of-00001.jsonl"], "think",
         ["data/think-00000-of-00001.jsonl"]),
        (["trainer.jsonl", "latest.jsonl"], "train", ["latest.jsonl", "trainer.jsonl"]),
    ],
)  # fmt: skip
def test_a_split_of_a_folder_is_found_by_the_names_of_its_files(
    names: list[str], split: str, expected: list[str], tmp_path: Path
) -> None:
    make(tmp_path, *names)
    assert chosen(tmp_path, split) == expected


def test_the_convention_is_that_of_datasets(tmp_path: Path) -> None:
    from datasets.data_files import DataFilesDict, get_data_patterns

    for number, names in enumerate((("train.jsonl", "test.jsonl"), ("training/a.jsonl", "eval/a.jsonl"))):
        folder = tmp_path / str(number)
        make(folder, *names)
        patterns = get_data_patterns(str(folder))
        for split, found in DataFilesDict.from_patterns(patterns, str(folder)).items():
            assert sorted(map(str, found)) == sorted(str(folder / name) for name in chosen(folder, str(split)))


def test_files_of_a_folder_that_are_not_read_are_said(tmp_path: Path) -> None:
    make(tmp_path, "train.jsonl", "test.jsonl", "extra.jsonl")
    assert local_files(str(tmp_path), "train").words == "split train: train.jsonl; not read: extra.jsonl, test.jsonl"


def test_a_split_that_is_not_there_is_refused_with_the_ones_that_are(tmp_path: Path) -> None:
    make(tmp_path, "test.jsonl", "dev.jsonl")
    with pytest.raises(UserError, match=r"data\.split: 'train' is not in .*It has validation, test"):
        local_files(str(tmp_path), "train")


def test_a_config_of_a_folder_is_chosen_by_its_card_or_by_its_folder(tmp_path: Path) -> None:
    make(tmp_path, "think/train-a.jsonl", "think/test.jsonl", "more/x.jsonl", "plain.jsonl", "loose/train.jsonl")
    (tmp_path / "README.md").write_text(CARD)
    assert chosen(tmp_path) == ["plain.jsonl"]
    assert chosen(tmp_path, config="think") == ["think/train-a.jsonl"]
    assert chosen(tmp_path, "test", "think") == ["more/x.jsonl", "think/test.jsonl"]
    assert chosen(tmp_path, config="loose") == ["loose/train.jsonl"]
    with pytest.raises(UserError, match=r"data\.config: 'thnik' is not in .*Did you mean think\?"):
        local_files(str(tmp_path), "train", "thnik")
    with pytest.raises(UserError, match=r"data\.split: 'test' is not in .*It has train"):
        local_files(str(tmp_path), "test", "plain")
    (tmp_path / "README.md").write_text(CARD.replace("  default: true\n", ""))
    with pytest.raises(UserError, match=r"data\.config: has to choose a part of .*one of think, plain"):
        local_files(str(tmp_path), "train")


@pytest.mark.parametrize(
    "card", ["", "# A set\n", "---\nlicense: mit\n---\n", "---\nconfigs: 3\n---\n", "---\n- a\n---\n"]
)
def test_a_card_without_configs_changes_nothing(card: str, tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl")
    (tmp_path / "README.md").write_text(card)
    assert chosen(tmp_path) == ["a.jsonl"]


def test_a_card_that_is_no_yaml_is_one_line(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl")
    (tmp_path / "README.md").write_text("---\n{: [\n---\n")
    with pytest.raises(UserError, match=r"README\.md' cannot be read"):
        local_files(str(tmp_path), "train")


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert local_files(str(tmp_path / "no"), "train") == LocalFiles([])
