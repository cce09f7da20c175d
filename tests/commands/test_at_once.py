"""Help and refusals before torch is imported: the same text, code and stream as from the command itself."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli import main
from commands import at_once, fit, fit_settings
from commands.at_once import DEFAULTS, SEVERAL
from commands.preflight import COMMANDS
from tests.commands.test_recorded import same_lightning
from tests.conftest import ROOT

pytestmark = same_lightning
DEMO = ("--config", str(ROOT / "configs" / "demo.yaml"))
HEAVY = ("torch", "lightning", "transformers", "datasets", "peft")
Said = tuple[int, str, str]  # exit code, standard output, standard error


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name in SEVERAL or name.startswith(DEFAULTS):
            monkeypatch.delenv(name)


def run_light(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs cli.main in a process in which torch and the like cannot be imported."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules.update(dict.fromkeys({HEAVY}))\n"
    code += f"from cli import main; sys.exit(main({list(args)}))"
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_torch(command: str) -> None:
    done = run_light(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python cli.py {command} [options]\n")


REFUSED = [
    (["fit", *DEMO, "--data.batchsize", "3"], "data.batchsize: there is no such setting. Did you mean"),
    (["fit", *DEMO, "--data.batch_size", "x"], "data.batch_size: 'x' is not valid. Give int."),
    (["fit", *DEMO, "--data.batch_size", "0"], "data.batch_size: '0' is below 1."),
    (["fit", *DEMO, "--trainer.precision", "bf16-true"], "trainer.precision: 'bf16-true' would hold"),
    (["fit", *DEMO, "--trainer.callbacks", "os.system"], "trainer.callbacks: 'os.system' would import the module os"),
    (["fit", *DEMO, "--data.source", "rows.jsnl"], "data.source: 'rows.jsnl' does not exist."),
    (["fit", *DEMO, "--model.name", "./qwen"], "model.name: './qwen' does not exist."),
    (["fit", *DEMO, "--model.start", "./no-run"], "model.start: './no-run' does not exist."),
    (["fit", *DEMO, "--ckpt_path", "last.ckpt"], "--ckpt_path: 'last.ckpt' is not a checkpoint"),
    (["validate"], "run.root: 'runs' holds no run with a checkpoint yet."),
    (["preview", *DEMO, "--rowz", "3"], "rowz: there is no such setting."),
    (["preview", *DEMO, "--data.source", "rows.jsonl"], "data.source: 'rows.jsonl' does not exist."),
    (["estimate", *DEMO, "--device_gb", "-1"], "device_gb: '-1.0' is not above 0."),
    (["estimate", *DEMO, "--model.name", "./qwen"], "model.name: './qwen' does not exist."),
    (["generate", "--temprature", "1"], "temprature: there is no such setting. Did you mean temperature?"),
    (["generate"], "--prompt: there is no prompt."),
    (["generate", "--prompts", "no.txt"], "--prompts: 'no.txt' cannot be read"),
    (["generate", "--prompt", "Hi", "--run", "nowhere"], "--run: 'nowhere' is not a run"),
    (["evaluate", "--samples", "0"], "samples: '0' is below 1."),
    (["export", "--run", "nowhere"], "--run: 'nowhere' is not a run"),
    (["self_train", "--rounds", "x"], "rounds: 'x' is not valid. Give int."),
    (["replay", "step.pt", "--device", ""], "device: '' is empty."),
]


@pytest.mark.slow
@pytest.mark.parametrize(("args", "words"), REFUSED, ids=lambda one: one[:40] if isinstance(one, str) else None)
def test_a_wrong_key_value_or_path_needs_no_torch(args: list[str], words: str, tmp_path: Path) -> None:
    done = run_light(*args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {words}") and done.stderr.count("\n") == 1, done.stderr


def test_a_process_among_several_leaves_it_to_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each of them would print the same error."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not at_once.answer("fit", [*DEMO, "--data.batch_size", "0"])


def test_a_changed_declaration_leaves_it_to_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commands.recorded.Recorded.fresh", lambda self: False)
    assert not at_once.answer("fit", [*DEMO, "--data.new_setting", "0"])
    assert not at_once.answer("fit", ["--help"])


@pytest.mark.parametrize(
    "args",
    [
        ["--trainer.profiler", "AdvancedProfiler"],  # the name of a class, which Lightning would find
        ["--trainer.logger={class_path: lightning.pytorch.loggers.CSVLogger}", "--data.batch_size", "0"],
        ["--trainer.callbacks+=lightning.pytorch.callbacks.Timer"],
        ["--data.batch_size", "0", "--print_config"],
    ],
)
def test_what_a_stand_in_cannot_decide_is_left_to_the_command(args: list[str]) -> None:
    assert not at_once.answer("fit", [*DEMO, *args])


Run = Callable[[Sequence[str], bool], Said]


@pytest.fixture(scope="module")
def say() -> Iterator[Run]:
    """Runs a command up to the work itself, with the early answer or without."""
    with pytest.MonkeyPatch.context() as patch:
        parsers = {command: fit_settings.build_parser(command) for command in ("fit", "validate")}
        patch.setattr(fit, "build_parser", parsers.__getitem__)  # made once: that takes half a second
        patch.setattr(fit.Job, "do", lambda self: None)
        early = at_once.answer

        def say(args: Sequence[str], light: bool) -> Said:
            patch.setattr(at_once, "answer", early if light else lambda command, args: False)
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(list(args))
            return code, out.getvalue(), err.getvalue()

        yield say


KEYS = [key for key in fit_settings.build_parser("fit").settings if key not in ("config", "print_config")]
WRONG = ["data.batchsize", "trainer.callback", "model.lora.rnak", "run", "mdoel.name", "data.columns.x", "x"]
WORDS = [
    "3", "0", "-1", "1.5", "1e400", "nan", "x", "", "null", "true", "[]", "[1, 2]", "[a]", "{}", "{a: 1}", "ddp", "gpu",
    "simple", "AdvancedProfiler", "advanced", "32-true", "16-true", "last", "./nowhere", "~nobody/x", "os.system",
    "lightning.pytorch.callbacks.Timer", "{class_path: lightning.pytorch.callbacks.Timer}", "a/b", "00:00:01:00",
    "{hours: 1}", "float32", "nf4", "all-linear", "[{name: builtin}]", "[{nme: builtin}]",
]  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 5), st.sampled_from([0.5, 1.0, float("nan")]), st.sampled_from(WORDS),
    st.lists(st.sampled_from(["a", 1, None]), max_size=2), st.dictionaries(st.sampled_from(["a", "rank"]), st.just(1)),
)  # fmt: skip
ANY_KEY = st.one_of(st.sampled_from(KEYS), st.sampled_from(KEYS), st.sampled_from(WRONG))
TYPED = st.lists(st.tuples(ANY_KEY, st.sampled_from(WORDS), st.booleans()), max_size=3)
WRITTEN = st.dictionaries(ANY_KEY, LEAVES, max_size=3)


def config_of(values: dict[str, Any]) -> dict[str, Any]:
    """The nested mapping of a config from {key in full: value}. A value that another one lies below is left out."""
    config: dict[str, Any] = {}
    for key in sorted(values, key=lambda key: -key.count(".")):
        group, *names = key.split(".")
        here = config
        for name in (group, *names)[:-1]:
            here = here.setdefault(name, {})
        here.setdefault((group, *names)[-1], values[key])
    return config


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=st.sampled_from(["fit", "fit", "fit", "validate"]), typed=TYPED, written=WRITTEN, after=st.booleans())
def test_the_early_answer_is_the_commands(
    command: str, typed: list[tuple[str, str, bool]], written: dict[str, Any], after: bool, say: Run, in_tmp: Path
) -> None:
    (in_tmp / "odd.yaml").write_text(yaml.safe_dump(config_of(written)))
    flags = [part for key, text, joined in typed for part in ([f"--{key}={text}"] if joined else [f"--{key}", text])]
    configs = [*DEMO, "--config", "odd.yaml"]
    args = [command, *configs, *flags] if after else [command, *flags, *configs]
    assert say(args, True) == say(args, False)


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "data: {batch_size: 1, batch_size: 2}", "x: 1", "\x00"])
def test_the_early_answer_about_a_file_is_the_commands(text: str, say: Run, in_tmp: Path) -> None:
    (in_tmp / "odd.yaml").write_text(text)
    args = ["fit", "--config", "odd.yaml"]
    early = say(args, True)
    assert early == say(args, False)
    assert early[0] == 2
