import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from restorekit.io.atomic import atomic_path, part_name, remove_stale


def test_the_file_appears_whole_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "bild é.png"
    with atomic_path(target) as part:
        name = rf"\.{re.escape(target.name)}\.{os.getpid()}\.[0-9a-f]{{6}}\.part"
        assert re.fullmatch(name, part.name)
        assert part.parent == tmp_path
        part.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def write_half(part: Path) -> None:
        part.write_bytes(b"half")
        raise error

    with pytest.raises(error), atomic_path(target) as part:
        write_half(part)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.png"):
        pass
    assert not list(tmp_path.iterdir())


def test_only_the_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead = tmp_path / part_name("a.png", int(child.stdout))
    beneath = tmp_path / "folder" / part_name("b.png", int(child.stdout))
    beneath.parent.mkdir()
    end = dead.name.removeprefix(f".a.png.{int(child.stdout)}.")
    keep = [
        tmp_path / part_name("a.png", os.getppid()),
        tmp_path / ".a.png.part",
        tmp_path / f"a.png.1.{end}",
        tmp_path / f".a.png.x1.{end}",
        tmp_path / f".a.png.{int(child.stdout)}.part",
    ]
    for path in [dead, beneath, *keep]:
        path.write_bytes(b"half")
    assert remove_stale(tmp_path) == [dead]
    assert beneath.exists()
    assert remove_stale(tmp_path, recursive=True) == [beneath]
    assert all(path.exists() for path in keep)


@pytest.mark.parametrize("letter", ["n", "é", "写"])
def test_the_longest_names_can_be_written(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (251 // len(letter.encode())) + ".png")
    with atomic_path(path) as part:
        part.write_bytes(b"x")
    assert list(tmp_path.iterdir()) == [path]


def test_of_its_own_number_a_process_keeps_only_what_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = tmp_path / part_name("a.png", os.getpid())
    crashed.write_bytes(b"half")
    monkeypatch.chdir(tmp_path)
    with atomic_path(Path("b.png")) as part:
        part.write_bytes(b"whole")
        assert remove_stale(tmp_path) == [crashed]
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


def test_parts_of_other_hosts_stay(tmp_path: Path) -> None:
    here = tmp_path / part_name("a.png", 999999999)
    host = here.name.split(".")[-2]
    there = tmp_path / here.name.replace(host, "000000" if host != "000000" else "111111")
    for path in (here, there):
        path.write_bytes(b"half")
    assert remove_stale(tmp_path) == [here]
    assert list(tmp_path.iterdir()) == [there]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "a.png"
    with atomic_path(target, overwrite=False) as part:
        part.write_bytes(b"first")

    with pytest.raises(FileExistsError), atomic_path(target, overwrite=False) as part:
        part.write_bytes(b"second")
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]
