"""The lines of metrics.csv, the figures of a run by step."""

import csv
import io

Line = dict[str, str]  # name of a figure -> number; empty if the line lacks it


def read_lines(text: str) -> list[Line] | None:
    """Return the lines; None if the text is damaged. Each line has its step and a field for each name."""
    if "\0" in text or "\ufffd" in text:
        return None
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        if text and "step" not in (reader.fieldnames or ()):
            return None
        lines = list(reader)
        whole = all(None not in line and None not in line.values() and int(line["step"]) >= 0 for line in lines)
    except (ValueError, csv.Error):
        return None
    return lines if whole else None


def written(lines: list[Line], names: list[str]) -> str:
    """Return the text of a file with these lines. A name that a line lacks is empty."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
