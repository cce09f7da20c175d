from pathlib import Path

import pytest

from lightning_modules.run.allocator import LINE, allocator_advice

GLIBC = "7f1a-7f1b r-xp 0000 fe:00 1  /usr/lib/x86_64-linux-gnu/libc.so.6\n"


@pytest.mark.parametrize(
    "loaded", ["/usr/lib/libjemalloc.so.2", "/opt/a b/libtcmalloc_minimal.so.4.5.9", "/x/libmimalloc.so"]
)
def test_advice_is_for_processes_with_glibcs_allocator_only(
    loaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    maps = tmp_path / "maps"
    maps.write_text(GLIBC)
    assert allocator_advice(maps) == LINE
    maps.write_text(f"{GLIBC}7f2a-7f2b r-xp 0000 fe:00 2  {loaded}\n{GLIBC}")
    assert allocator_advice(maps) is None


def test_other_systems_get_no_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert allocator_advice(tmp_path / "none") is None
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))  # macOS, musl
    (tmp_path / "maps").write_text(GLIBC)
    assert allocator_advice(tmp_path / "maps") is None
