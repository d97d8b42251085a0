import os
import subprocess
import sys
from pathlib import Path

import pytest

from restorekit.io.atomic import atomic_path, remove_stale


def test_the_file_appears_whole_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "bild é.png"
    with atomic_path(target) as part:
        assert part.name == f".{target.name}.{os.getpid()}.part"
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
    dead = tmp_path / f".a.png.{int(child.stdout)}.part"
    beneath = tmp_path / "folder" / f".b.png.{int(child.stdout)}.part"
    beneath.parent.mkdir()
    keep = [
        tmp_path / f".a.png.{os.getpid()}.part",
        tmp_path / ".a.png.part",
        tmp_path / "a.png.1.part",
        tmp_path / ".a.png.x1.part",
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
