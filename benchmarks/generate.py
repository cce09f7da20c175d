"""Compare ways to generate: ours, transformers on the net as it trains, and transformers on merged weights.

    python -m benchmarks.generate --smollm FOLDER --out generate.jsonl

ours:    lightning_modules/generation, as validation, `generate` and `predict` use it
net:     transformers' generate on the net with its adapters, in batches of 16 in the given order
plain:   transformers' generate on the merged weights, loaded from a folder as a user would, in the same batches
limit:   the seconds in which the weights can be read once for each of ours' steps, at the bandwidth measured beside it

Each run of a way has its own process; repetitions take turns, and the table has the best of each. A batch of `net` and
`plain` runs to the limit of its longest response. No token ends one, so all ways write the same number of tokens.
The weights of `0.5b` are random. Without --smollm, a folder with SmolLM2-135M, `smollm2` is random, too.

    python -m benchmarks.generate --equal --smollm FOLDER [--run RUN]

compares the greedy texts: the embedded model's 200 held-out problems and SmolLM2's prompts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.memory import ROOT, Tokens, status

BATCH = 16  # of `net` and `plain`
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Setting:
    shape: str
    rank: int
    targets: Any  # LoraSettings.target_modules
    prompts: int
    limits: tuple[int, int]  # the shortest and the longest response


SETTINGS = {
    "smollm2, 16 x 256": Setting("smollm2", 64, "all-linear", 16, (256, 256)),
    "smollm2, 64 of 16 to 256": Setting("smollm2", 64, "all-linear", 64, (16, 256)),
    "0.5b, 32 x 48": Setting("0.5b", 8, list(QKVO), 32, (48, 48)),
    "0.5b, 64 of 8 to 96": Setting("0.5b", 8, list(QKVO), 64, (8, 96)),
    "tiny, 6 of 2 to 8": Setting("tiny", 4, "all-linear", 6, (2, 8)),  # for the tests
}
WAYS = ("ours", "net", "plain")


def base_of(shape: str, smollm: Path | None, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    small = {
        "hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49_152, "tie_word_embeddings": True,
    }  # fmt: skip
    half = small | {
        "hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 2816, "num_attention_heads": 16,
        "num_key_value_heads": 16, "vocab_size": 151_936,
    }  # fmt: skip
    tiny = small | {"hidden_size": 36, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 512}
    if shape == "smollm2" and smollm:
        model: Any = AutoModelForCausalLM.from_pretrained(smollm, dtype=getattr(torch, dtype))
        return model
    if shape == "0.5b":
        return Qwen2ForCausalLM(Qwen2Config(**half)).to(getattr(torch, dtype))
    return LlamaForCausalLM(LlamaConfig(**(small if shape == "smollm2" else tiny))).to(getattr(torch, dtype))


def net_of(setting: Setting, smollm: Path | None, dtype: str) -> Any:
    """A ThinkNet with adapters that change what is written, a little."""
    import torch

    from lightning_modules.net.lora import LoraSettings
    from lightning_modules.net.think_net import ThinkNet

    base = base_of(setting.shape, smollm, dtype)
    tokenizer: Any = Tokens(base.config.vocab_size)
    net = ThinkNet(base, tokenizer, LoraSettings(rank=setting.rank, target_modules=setting.targets))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.002)
    return net.eval()


def requests_of(setting: Setting, smollm: Path | None, vocabulary: int) -> list[Any]:
    """Prompts of 10 to 50 tokens: with SmolLM2's own tokenizer built-in problems, else random ids."""
    import numpy as np

    from lightning_modules.generation.token_choice import Request

    drawn = np.random.default_rng(0)
    limits = drawn.integers(setting.limits[0], setting.limits[1] + 1, setting.prompts).tolist()
    prompts = [drawn.integers(0, vocabulary - 2, int(drawn.integers(10, 51))).tolist() for _ in limits]
    if setting.shape == "smollm2" and smollm:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(smollm)
        texts = problems(setting.prompts)
        prompts = [
            tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)["input_ids"]
            for text in texts
        ]
    return [Request(prompt, limit=limit) for prompt, limit in zip(prompts, limits, strict=True)]


def problems(count: int) -> list[str]:
    """Built-in problems that the embedded model was not trained on."""
    from datamodules.rows import builtin

    return [row["instruction"] for row in islice(filter(builtin.is_held_out, builtin.rows(1)), count)]


def write(way: str, net: Any, requests: Sequence[Any], decoding: Any) -> tuple[tuple[float, float], list[list[int]]]:
    """Return the seconds and the CPU seconds, and the ids of each response."""
    import torch

    from lightning_modules.generation.continuous_batching import write_all
    from lightning_modules.generation.folded_weights import FoldedWeights
    from lightning_modules.generation.memory import row_count
    from lightning_modules.generation.token_choice import TokenChoice
    from lightning_modules.generation.with_transformers import generate_batch

    written: dict[int, list[int]] = {}
    device = next(net.parameters()).device
    batches = [range(start, min(start + BATCH, len(requests))) for start in range(0, len(requests), BATCH)]
    model = reload_merged(net) if way == "plain" else net
    start, cpu = time.perf_counter(), time.process_time()
    if way == "ours":
        weights = FoldedWeights(net, decoding.known_ids)
        choice = TokenChoice(decoding, row_count(net, requests, decoding.settings.max_new_tokens), device)
        written = {k: one.ids for k, one in write_all(weights, choice, requests, lambda: False, lambda *_: None)}
    for batch in batches if way == "net" else []:
        choice = TokenChoice(decoding, BATCH, device)
        with torch.no_grad():
            found = generate_batch(net, choice, [requests[k] for k in batch], 0, lambda: False)
        written |= {k: one.ids for k, one in zip(batch, found or [], strict=True)}
    for batch in batches if way == "plain" else []:
        written |= dict(zip(batch, plain(model, [requests[k] for k in batch]), strict=True))
    seconds = time.perf_counter() - start, time.process_time() - cpu
    return seconds, [written[k] for k in range(len(requests))]


def reload_merged(net: Any) -> Any:
    from transformers import AutoModelForCausalLM

    from lightning_modules.export.merged import merge

    with tempfile.TemporaryDirectory() as folder:
        merge(net).save_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(folder).eval().to(next(net.parameters()).device)


def plain(model: Any, requests: Sequence[Any]) -> list[list[int]]:
    import torch

    width, longest = max(len(one.ids) for one in requests), max(one.limit for one in requests)
    ids = torch.tensor([[0] * (width - len(one.ids)) + list(one.ids) for one in requests])
    mask = torch.tensor([[0] * (width - len(one.ids)) + [1] * len(one.ids) for one in requests])
    model.generation_config.eos_token_id = None
    ids, mask = ids.to(model.device), mask.to(model.device)
    out = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=longest, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    return [row[: one.limit] for row, one in zip(out[:, width:].tolist(), requests, strict=True)]


def measure(name: str, way: str, smollm: Path | None, dtype: str, threads: int, device: str) -> dict[str, Any]:
    """One way, in this process: seconds, tokens, the peak of memory beyond the loaded net, the limit's seconds."""
    import torch

    from lightning_modules.generation.decoding import Decoding, DecodingSettings

    torch.set_num_threads(threads)
    setting = SETTINGS[name]
    net, cuda = net_of(setting, smollm, dtype).to(device), device == "cuda"
    requests = requests_of(setting, smollm, net.vocabulary)
    decoding = Decoding(DecodingSettings(max_new_tokens=setting.limits[1]), (net.vocabulary,), net.vocabulary)
    write(way if way != "plain" else "net", net, [one._replace(limit=2) for one in requests[:2]], decoding)  # warm
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = torch.cuda.memory_allocated() if cuda else status("VmRSS")
    seconds, written = write(way, net, requests, decoding)
    peak = (torch.cuda.max_memory_allocated() if cuda else status("VmHWM")) - before
    weights = sum(p.nbytes for name, p in net.causal_lm.named_parameters() if "lora_" not in name)
    steps = setting.limits[1]  # of ours, while all prompts fit
    return {
        "seconds": seconds[0],
        "cpu_seconds": seconds[1],
        "tokens": sum(map(len, written)),
        "peak_mb": peak / 1e6,
        "net_mb": weights / 1e6,
        "limit_seconds": steps * weights / bandwidth(int(weights), device),
        "written": written,
    }


def bandwidth(size: int, device: str) -> float:
    """Return the bytes per second at which all threads read this number of bytes, best of five."""
    import torch

    part = torch.ones(size // 4, device=device)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        float(torch.dot(part, part))  # waits for the device
        best = min(best, time.perf_counter() - start)
    return part.nbytes / best


def equal_texts(smollm: Path | None, run: str | None) -> None:
    """Print how many greedy texts of two ways are equal."""
    import torch

    from commands.load import load_run
    from lightning_modules.generation.decoding import Decoding, DecodingSettings

    def count(name: str, one: list[list[int]], other: list[list[int]]) -> None:
        print(f"{name}: {sum(a == b for a, b in zip(one, other, strict=True))} of {len(one)} equal", flush=True)

    if run:
        from lightning_modules.generation.token_choice import Request

        tuner = (loaded := load_run(run, None, "runs")).tuner
        assert tuner.net is not None
        prompts = [loaded.template.prompt(text) for text in problems(200)]
        requests = [Request(ids) for ids in tuner.tokenizer.encode_prompts(prompts)]
        decoding = Decoding.of(tuner.tokenizer, tuner.generation_config, DecodingSettings(max_new_tokens=200))
        net = tuner.net.eval()
        count("demo, float32, ours and net", *(write(way, net, requests, decoding)[1] for way in ("ours", "net")))
    setting = SETTINGS["smollm2, 16 x 256"]
    for dtype in ("float32", "bfloat16") if smollm else ():
        net = net_of(setting, smollm, dtype)
        requests = [one._replace(limit=64) for one in requests_of(setting, smollm, net.vocabulary)]
        decoding = Decoding(DecodingSettings(max_new_tokens=64), (net.vocabulary,), net.vocabulary)
        theirs = write("net", net, requests, decoding)[1]
        count(f"smollm2, {dtype}, ours and net", write("ours", net, requests, decoding)[1], theirs)
        alone = [write("net", net, [one], decoding)[1][0] for one in requests]
        count(f"smollm2, {dtype}, net in batches of {BATCH} and one by one", theirs, alone)
        torch.manual_seed(0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=["smollm2", "0.5b"], help="words in the names of the settings")
    parser.add_argument("--ways", nargs="*", default=WAYS, choices=WAYS)
    parser.add_argument("--smollm", type=Path, help="a folder with SmolLM2-135M")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="results are appended, one JSON object a line")
    parser.add_argument("--equal", action="store_true", help="compare texts instead")
    parser.add_argument("--run", help="with --equal: a run of the demo")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure, args.smollm, args.dtype, args.threads, args.device)))
        return
    if args.equal:
        equal_texts(args.smollm, args.run)
        return
    for name in (name for name in SETTINGS if any(word in name for word in args.only)):
        best: dict[str, dict[str, Any]] = {}
        for repetition in range(args.repeat):
            for way in [*args.ways[repetition % 3 :], *args.ways[: repetition % 3]]:
                command = [sys.executable, "-m", "benchmarks.generate", *sys.argv[1:], "--measure", name, way]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
                found = json.loads(done.stdout.splitlines()[-1])
                if way not in best or found["seconds"] < best[way]["seconds"]:
                    best[way] = found
                if args.out:
                    with args.out.open("a") as file:
                        file.write(json.dumps({"setting": name, "way": way} | found) + "\n")
        print(f"{name}, {args.dtype}: weights of {next(iter(best.values()))['net_mb']:,.0f} MB")
        for way, found in best.items():
            ratios = "".join(f"{best[o]['seconds'] / found['seconds']:7.2f} x {o}" for o in best if o != way)
            print(
                f"  {way:6}{found['seconds']:8.2f} s{found['cpu_seconds']:8.2f} CPU s"
                f"{found['tokens'] / found['seconds']:8.0f} tokens/s{found['peak_mb']:8.0f} MB more {ratios}"
            )
        limit = min(found["limit_seconds"] for found in best.values())
        print(f"  limit {limit:8.2f} s", flush=True)


if __name__ == "__main__":
    main()
