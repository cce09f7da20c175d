"""report: one page with the figures, answers and settings of a run, or of two runs one over the other."""

import logging
from collections.abc import Sequence
from pathlib import Path

from commands.messages import quiet
from commands.parsing import Parser
from commands.run_report.drawing import require_matplotlib
from disk import disk_errors, new_folder, write_file
from errors import UserError
from lightning_modules.run.folder import RunSettings, find_runs

log = logging.getLogger("thinkwright")
OWN = "report.html"


def build_parser() -> Parser:
    parser = Parser(
        "report",
        "The page opens without network. It can be made while the run is still training, and changes nothing in it.",
    )
    parser.add_argument(
        "runs",
        type=str,
        nargs="*",
        help="One or two folders runs/NAME/TIME. The figures of two runs are drawn one over the other. Without a "
        "folder it is the newest run.",
    )
    parser.add_argument("--root", type=str, default=RunSettings().root, help="Folder of all runs.")
    parser.add_argument(
        "--to",
        type=str | None,
        default=None,
        help="New file for the page. null is report.html in the folder of the (first) run, and "
        "report-beside-NAME-TIME.html for two: an older report of that name is replaced.",
    )
    parser.add_argument(
        "--png", type=str | None, default=None, help="New folder for the figures as PNG files; null writes none."
    )
    return parser


def run(args: Sequence[str]) -> int:
    quiet()
    given = build_parser().read(args)
    require_matplotlib()
    from commands.run_report.charts import charts
    from commands.run_report.drawing import as_svg, write_pngs
    from commands.run_report.page import page
    from commands.run_report.read import read_run
    from lightning_modules.run.environment import program_version

    folders = chosen_runs(given.runs, given.root)
    target = target_file(given.to, folders)
    if given.png is not None and (Path(given.png).expanduser().exists()):
        raise UserError("--png", given.png, "exists", "give a new name")
    records = [read_run(folder) for folder in folders]
    for record in records:
        for line in record.missing:
            log.info(f"{record.name}: {line}")
    found = charts(records)
    text = page(records, found, [as_svg(one) for one in found], program_version())
    if given.png is not None:
        pngs = Path(given.png).expanduser()
        with disk_errors("--png", given.png), new_folder(pngs) as scratch:
            write_pngs(found, scratch)
        print(f"{len(found)} figures in {given.png}")
    with disk_errors("--to", target):
        write_file(target, text.encode("utf-8", "backslashreplace"))
    print(f"written to {target}")
    return 0


def chosen_runs(names: Sequence[str], root: str) -> list[Path]:
    """Return one or two folders of runs. Raise UserError for more, for the same one twice, and if there is none."""
    if len(names) > 2:
        raise UserError("RUN", " ".join(names), "are more than two runs", "give one or two")
    if not names:
        newest = next(find_runs(root), None)
        if newest is None:
            fix = "train one first: python cli.py fit --config configs/demo.yaml"
            raise UserError("--root", root, "holds no run yet", fix)
        return [newest.folder]
    folders = [Path(name).expanduser() for name in names]
    if len(folders) == 2 and folders[0].resolve() == folders[1].resolve():
        raise UserError("RUN", names[1], "is the same run", "give another one, or one only")
    return folders


def target_file(to: str | None, folders: Sequence[Path]) -> Path:
    """Return the file for the page. Raise UserError if it exists and is no report that may be replaced."""
    from commands.run_report.page import GENERATOR

    if to is not None:
        target = Path(to).expanduser()
        if target.exists():
            raise UserError("--to", to, "exists", "give a new name")
        if not target.parent.is_dir():
            raise UserError("--to", to, "cannot be written (there is no such folder)", "make the folder first")
        return target
    name = OWN
    if len(folders) > 1:
        other = folders[1].resolve()
        name = f"report-beside-{other.parent.name}-{other.name}.html"
    target = folders[0] / name
    with disk_errors("--to", target):
        if target.exists() and GENERATOR not in target.read_bytes()[:4096].decode("utf-8", "replace"):
            raise UserError("--to", target, "exists and is no report", "give a new name")
    return target
