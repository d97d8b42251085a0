import errno
import io
import os
from pathlib import Path

import pytest

from restorekit.cli.inputs import Source, find_sources, not_there, spool
from restorekit.cli.options import parse_noise
from restorekit.cli.output import combined_exit_code, plain
from restorekit.cli.restore import parse_crop
from restorekit.cli.targets import Destination, parse_destination, picture_format, plan_targets
from restorekit.errors import OutputError, UsageError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(
    *words: str | Path, recursive: bool = False, kept_out: Path | None = None
) -> tuple[list[str], list[str]]:
    sources, missing, _ = find_sources(
        [str(word) for word in words], recursive=recursive, task="denoise", kept_out=kept_out
    )
    return [source.place.as_posix() for source in sources], missing


def targets(
    *paths: Path, output: str | None = None, chosen: str | None = None, base: Path | None = None
) -> list[str]:
    sources = [Source(p, p.relative_to(base) if base else Path(p.name)) for p in paths]
    destination = parse_destination(output)
    return [
        target.as_posix()
        for target in plan_targets(sources, destination, task="denoise", chosen=chosen)
    ]


def test_a_folder_gives_its_pictures_in_order(tmp_path: Path) -> None:
    touch(tmp_path / "b.jpg", tmp_path / "a.PNG", tmp_path / "sub" / "c.dng", tmp_path / "n.txt")
    assert found(tmp_path) == (["a.PNG", "b.jpg"], [])
    assert found(tmp_path, recursive=True) == (["a.PNG", "b.jpg", "sub/c.dng"], [])


def test_a_walk_passes_over_hidden_files_earlier_outputs_and_the_output_folder(
    tmp_path: Path,
) -> None:
    touch(
        tmp_path / "a.png",
        tmp_path / "a_denoise.png",
        tmp_path / "a_denoise_2.png",
        tmp_path / "only_denoise.png",
        tmp_path / ".b.png.77.part",
        tmp_path / ".hidden.png",
        tmp_path / ".cache" / "c.png",
        tmp_path / "out" / "a.png",
    )
    places, missing = found(tmp_path, recursive=True, kept_out=tmp_path / "out")
    assert places == ["a.png", "only_denoise.png"]
    assert missing == []


def test_a_pattern_passes_over_the_output_folder(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "out" / "a.png", tmp_path / "sub" / "b.png")
    for pattern, places in (("**/*.png", ["a.png", "sub/b.png"]), ("*", ["a.png", "sub/b.png"])):
        assert found(tmp_path / pattern, kept_out=tmp_path / "out") == (places, [])
    inside = found(tmp_path / "out" / "*.png", kept_out=tmp_path / "out")
    assert inside == (["a.png"], [])


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a.png", tmp_path / "shut" / "b.png")
    shut, scandir = str(tmp_path / "shut"), os.scandir

    def refuse(path: str) -> object:
        if os.fspath(path) == shut:
            raise PermissionError(13, "Permission denied", shut)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(tmp_path, recursive=True) == (["a.png"], [shut])
    assert str(not_there([shut])) == f"{shut}: this folder cannot be read"


def test_an_earlier_output_is_known_by_a_name_of_two_lines(tmp_path: Path) -> None:
    touch(tmp_path / "a\nb.png", tmp_path / "a\nb_denoise.png")
    assert found(tmp_path) == (["a\nb.png"], [])


def test_pictures_of_formats_that_are_not_read_are_counted(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "b.HEIC", tmp_path / "sub" / "c.heif")
    touch(tmp_path / "sub" / "d.jxl", tmp_path / "e.txt", tmp_path / ".f.heic")
    for word in (tmp_path, tmp_path / "*"):
        sources, missing, passed = find_sources(
            [str(word)], recursive=True, task="denoise", kept_out=None
        )
        assert [source.path.name for source in sources] == ["a.png"]
        assert (missing, passed) == ([], {"HEIC": 2, "JPEG XL": 1})
    assert found(tmp_path / "*.HEIC") == ([], [])


def test_an_output_named_by_hand_is_an_input(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "a_denoise.png")
    assert found(tmp_path / "a_denoise.png") == (["a_denoise.png"], [])


def test_links_that_form_a_loop_are_walked_once(tmp_path: Path) -> None:
    touch(tmp_path / "sub" / "a.png")
    (tmp_path / "sub" / "back").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert found(tmp_path, recursive=True) == (["sub/a.png"], [])


def test_a_linked_folder_is_walked(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert found(tmp_path / "in", recursive=True) == (["linked/a.png"], [])


def test_a_pattern_is_expanded_below_its_fixed_part(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "a.png", tmp_path / "y" / "z" / "b.png", tmp_path / "y" / "c.txt")
    assert found(tmp_path / "*" / "*.png") == (["x/a.png"], [])
    assert found(tmp_path / "**" / "*.png") == (["x/a.png", "y/z/b.png"], [])
    assert found(tmp_path / "y" / "*") == (["z/b.png"], [])
    assert found(tmp_path / "*.jpg") == ([], [str(tmp_path / "*.jpg")])


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    touch(tmp_path / "a[1].png", tmp_path / "a1.png")
    assert found(tmp_path / "a[1].png") == (["a[1].png"], [])


def test_a_file_named_twice_is_taken_once_and_a_missing_one_is_reported(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    words = (tmp_path / "a.png", tmp_path, tmp_path / "none.png")
    assert found(*words) == (["a.png"], [str(tmp_path / "none.png")])


def test_an_empty_word_is_not_the_current_folder() -> None:
    with pytest.raises(UsageError, match="empty word"):
        found("")


@pytest.mark.parametrize("name", ["a.png", "z.png"])
def test_a_file_is_taken_before_a_link_to_it(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "noisy.png")
    (tmp_path / name).symlink_to("noisy.png")
    assert found(tmp_path) == (["noisy.png"], [])
    assert found(tmp_path / name) == ([name], [])


def test_a_name_that_is_no_text_is_found(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("the file system wants UTF-8 names")
    places, _ = found(tmp_path)
    assert plain(places[0]) == "\\udcff.png"


@pytest.mark.parametrize(
    ("name", "chosen", "expected"),
    [
        ("a.png", None, "a_denoise.png"),
        ("a.JPG", None, "a_denoise.JPG"),
        ("a.bmp", None, "a_denoise.png"),
        ("a.dng", None, "a_denoise.tif"),
        ("a.NEF", None, "a_denoise.tif"),
        ("a.dng", "cfa-dng", "a_denoise.dng"),
        ("a.b.png", "jpg", "a.b_denoise.jpg"),
    ],
)
def test_the_default_name(tmp_path: Path, name: str, chosen: str | None, expected: str) -> None:
    assert targets(tmp_path / name, chosen=chosen) == [(tmp_path / expected).as_posix()]


def test_a_tree_is_mirrored_with_its_names(tmp_path: Path) -> None:
    paths = (tmp_path / "in" / "a.png", tmp_path / "in" / "sub" / "a.dng")
    out = (tmp_path / "out").as_posix()
    assert targets(*paths, output=out, base=tmp_path / "in") == [f"{out}/a.png", f"{out}/sub/a.tif"]


def test_inputs_of_one_stem_do_not_share_an_output(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.dng", "a.tif", "a.jpg")]
    assert [Path(t).name for t in targets(*paths)] == [
        "a_dng_denoise.tif",
        "a_tif_denoise.tif",
        "a_denoise.jpg",
    ]
    named = targets(*paths, output=str(tmp_path / "out"), chosen="png")
    assert [Path(t).name for t in named] == ["a_dng.png", "a_tif.png", "a_jpg.png"]


def test_outputs_told_apart_by_suffix_are_no_inputs_of_the_next_run(tmp_path: Path) -> None:
    touch(tmp_path / "a.dng", tmp_path / "a.tif", tmp_path / "a_dng_denoise.tif")
    assert found(tmp_path) == (["a.dng", "a.tif"], [])


def test_the_folder_of_the_input_as_output_keeps_the_input(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    expected = [(tmp_path / "a_denoise.png").as_posix()]
    assert targets(tmp_path / "a.png", output=str(tmp_path)) == expected


def test_clashes_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "a.png", tmp_path / "y" / "a.png")
    paths = (tmp_path / "x" / "a.png", tmp_path / "y" / "a.png")
    with pytest.raises(UsageError, match="both become"):
        targets(*paths, output=str(tmp_path / "out"))
    with pytest.raises(UsageError, match="is an input"):
        targets(*paths, output=str(tmp_path / "y"))
    with pytest.raises(UsageError, match="is an input"):
        targets(paths[0], output=str(paths[0]))
    with pytest.raises(UsageError, match="one file for 2 inputs"):
        targets(*paths, output=str(tmp_path / "out.png"))


def test_what_an_output_word_means(tmp_path: Path) -> None:
    (tmp_path / "v1.2").mkdir()
    assert parse_destination(None) == Destination()
    assert parse_destination("out.JPG") == Destination(file=Path("out.JPG"))
    assert parse_destination("out") == Destination(folder=Path("out"))
    assert parse_destination("new.v2/") == Destination(folder=Path("new.v2"))
    assert parse_destination(str(tmp_path / "v1.2")) == Destination(folder=tmp_path / "v1.2")
    with pytest.raises(UsageError, match="cannot write .bmp"):
        parse_destination("out.bmp")


def test_the_picture_format_follows_the_output_or_the_option() -> None:
    assert picture_format(Destination(), None) is None
    assert picture_format(Destination(folder=Path("x")), "jpg") == "jpg"
    assert picture_format(Destination(file=Path("x.jpeg")), None) == "jpg"
    assert picture_format(Destination(file=Path("x.dng")), None) == "dng"
    assert picture_format(Destination(file=Path("x.dng")), "cfa-dng") == "cfa-dng"
    with pytest.raises(UsageError, match="--to png"):
        picture_format(Destination(file=Path("x.jpg")), "png")


def test_a_link_to_nowhere_is_missing(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert found(tmp_path / "gone.png") == ([], [str(tmp_path / "gone.png")])


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x89PNG\r\n\x1a\n....", "stdin.png"),
        (b"\xff\xd8\xff\xe0........", "stdin.jpg"),
        (b"RIFF\n\0\0\0WEBPVP8 ", "stdin.webp"),
        (b"II*\0........", "stdin.tif"),
        (b"MM\0*........", "stdin.tif"),
        (b"FUJIFILMCCD-RAW ", "stdin.raf"),
        (b"\0\0\0\x18ftypcrx ", "stdin.cr3"),
        (b"\0\0\0\x20ftypavif", "stdin.avif"),
        (b"IIRO\x08\0\0\0", "stdin.orf"),
        (b"IIU\0\x18\0\0\0", "stdin.rw2"),
        (b"", "stdin"),
    ],
)
def test_a_pipe_is_kept_under_the_suffix_of_its_content(
    tmp_path: Path, head: bytes, name: str
) -> None:
    source = spool(io.BytesIO(head), tmp_path)
    assert source.path == tmp_path / name
    assert source.path.read_bytes() == head


def test_a_pipe_that_fills_the_disk_names_the_remedy(tmp_path: Path) -> None:
    class Flood(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match="No space left on device.*; set TMPDIR"):
        spool(Flood(), tmp_path)


def test_crop_and_noise_are_read() -> None:
    assert parse_crop("0,16,512,256") == (0, 16, 512, 256)
    assert parse_noise("25") == (25.0,)
    assert parse_noise("1e-3,0.002") == (0.001, 0.002)
    assert parse_crop(None) is None
    assert parse_noise(None) is None


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,x", "0,0,0,5", "-1,0,5,5"])
def test_a_wrong_crop_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--crop"):
        parse_crop(text)


@pytest.mark.parametrize("text", ["", "a", "-1", "nan", "inf", "1,2,3", "1,"])
def test_a_wrong_noise_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--noise"):
        parse_noise(text)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([65, 65], 65), ([73], 73), ([0, 65], 3), ([65, 73], 3), ([0, 73, 73], 3)],
)
def test_the_exit_code_of_many_files(codes: list[int], expected: int) -> None:
    assert combined_exit_code(codes) == expected


def test_file_names_cannot_break_a_line() -> None:
    assert plain("a\nb\x1b[31m é.png") == "a\\nb\\x1b[31m é.png"
