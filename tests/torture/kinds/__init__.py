"""The kinds of torture, one file each. `cases(world)` of a file returns its cases, in a fixed order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.torture.kinds import damage, disk_errors, kills, long_run, odd_values, processes, races, texts
from tests.torture.suite import Case
from tests.torture.world import World


@dataclass(frozen=True)
class Kind:
    """A kind of torture. `done` and `holds` are its words in docs/reliability.md."""

    cases: Callable[[World], list[Case]]
    few: int  # cases of the quick part
    done: str
    holds: str

    def quick(self, cases: Sequence[Case]) -> list[Case]:
        """A few cases, spread evenly."""
        return [] if not self.few else list(cases[len(cases) // (2 * self.few) :: -(-len(cases) // self.few)])


KINDS = {
    "kills": Kind(
        kills.cases, 4,
        "SIGKILL before every file operation of fit, resume, export, predict and preview; inside the writes of C++ and "
        "Rust; at random moments",
        "the next start ends with the bits of an undisturbed one; nothing of the dead process stays",
    ),
    "processes": Kind(
        processes.cases, 1,
        "SIGKILL at random moments on two processes, DDP and FSDP2: both, or one",
        "the other process ends within a minute; the next start ends with the bits of an undisturbed one",
    ),
    "damage": Kind(
        damage.cases, 5,
        "flipped bits, a cut end, zeros, other content, nothing, or a folder in each file that a command reads",
        "the right result, or one line that names the file or its folder",
    ),
    "texts": Kind(
        texts.cases, 1,
        "random texts of hostile pieces, by random policies, from the row to its tokens",
        "nothing is lost, each token has its role, the tokens spell the text",
    ),
    "disk errors": Kind(
        disk_errors.cases, 4,
        "a disk that is full, read-only or forbidden from each file operation of a command on; a largest file size",
        "one line that names the setting; what was there before is whole",
    ),
    "races": Kind(
        races.cases, 3,
        "two fits of one run or of the same rows, two exports, readers beside a writer, folders deleted under a fit, "
        "signals",
        "right results, or one line; never two writers of one run",
    ),
    "odd values": Kind(
        odd_values.cases, 5,
        "NaN, infinity, 0, -1, 2^70, empty and overlong texts, odd names and other types in each setting",
        "it works, or one line names the setting",
    ),
    "long run": Kind(
        long_run.cases, 0,
        "2,000 optimizer steps",
        "memory, open files, threads and time of a step do not grow",
    ),
}  # fmt: skip
