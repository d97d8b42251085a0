import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from restorekit.cli.main import main
from restorekit.hub import store
from tests.hub_server import bundle_of, running_hub, stored, use_hub
from tests.test_convert import published_s

SHA256 = hashlib.sha256(b"bundled").hexdigest()

Outcome = tuple[int, str, str]
Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> Outcome:
        with pytest.raises(SystemExit) as caught:
            main(["models", *map(str, words)])
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = bundle_of(tmp_path / "weights", b"bundled")
    monkeypatch.setattr(store, "weights_folder", lambda: folder)
    return folder


def test_ls(run: Run, bundle: Path) -> None:
    assert run("ls") == (0, "net.test  denoise   rgb    CC0-1.0\n", "")
    code, out, err = run("ls", "--format", "json")
    assert (code, err) == (0, "")
    assert [card["sha256"] for card in json.loads(out)] == [SHA256]


def test_info(run: Run, bundle: Path) -> None:
    code, out, err = run("info", "net.test")
    assert (code, err) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["licence"] == "CC0-1.0"
    assert facts["scores"] == "psnr 31.5"
    assert facts["sha256"] == SHA256
    assert facts["size"] == "7 bytes"
    assert "repo" not in facts
    code, out, _ = run("info", "net.test", "--format", "json")
    assert json.loads(out) == store.find_card("net.test").to_json() | {"size": 7}


def test_info_on_the_hub_downloads_no_weights(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with running_hub() as server:
        use_hub(monkeypatch, server.url, tmp_path)
        commit = server.publish("someone/net", stored(b"weights"))
        code, out, _ = run("info", "someone/net", "--format", "json")
    facts = json.loads(out)
    assert (code, facts["revision"], facts["size"]) == (0, commit, None)


def test_verify_checks_every_bundled_model(run: Run, bundle: Path) -> None:
    assert run("verify") == (0, f"net.test  sha256 {SHA256}\n", "")
    (bundle / "net.test.safetensors").write_bytes(b"changed")
    code, out, err = run("verify")
    assert (code, out) == (69, "")
    mismatch, summary = err.splitlines()
    assert "net.test.safetensors have sha256" in mismatch
    assert summary == "restorekit: error: 1 of 1 models did not pass"


def test_verify_says_where_there_is_nothing_to_compare(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    for name, content in stored(b"weights", sha256="").items():
        (tmp_path / name).write_bytes(content)
    code, _, err = run("verify", tmp_path)
    assert code == 0
    assert "states no sha256" in err


def test_verify_goes_on_after_a_mismatch(run: Run, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name, content in stored(b"weights", sha256="0" * 64).items():
        (folder / name).write_bytes(content)
    code, out, err = run("verify", folder, "net.test", "--format", "json")
    assert code == 69
    assert [card["name"] for card in json.loads(out)] == ["net.test"]
    assert "1 of 2 models did not pass" in err


def test_pull_then_work_offline(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"weights").hexdigest()
    with running_hub() as server:
        use_hub(monkeypatch, server.url, tmp_path)
        commit = server.publish("someone/net", stored(b"weights"))
        pulled = (0, f"someone/net@{commit}  sha256 {sha256}\n", "")
        assert run("pull", "someone/net") == pulled
        server.requests.clear()
        assert run("pull", f"someone/net@{commit}") == pulled
        assert run("verify", "someone/net", "--offline") == pulled
        assert server.requests == []


def test_import(run: Run, tmp_path: Path) -> None:
    checkpoint, folder = tmp_path / "net.pth", tmp_path / "kbnet_s.gaussian"
    torch.save({"net": published_s(lightweight=False, ffn_scale=2.0)}, checkpoint)
    code, out, err = run("import", checkpoint, folder)
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert (code, out, err) == (0, f"kbnet_s.gaussian  sha256 {sha256}\n", "")
    code, _, err = run("import", tmp_path / "none.pth", tmp_path / "other")
    assert code == 66
    assert err == f"restorekit: error: {tmp_path / 'none.pth'}: no such file\n"


def test_import_keeps_the_warnings_of_torch_to_itself(run: Run, tmp_path: Path) -> None:
    checkpoint = tmp_path / "net.pth"
    content = {"net": published_s(lightweight=False, ffn_scale=2.0)}
    torch.save(content, checkpoint, pickle_protocol=3)
    assert run("import", checkpoint, tmp_path / "kbnet_s.gaussian")[::2] == (0, "")


def test_push(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Path) -> None:
    with running_hub() as server:
        use_hub(monkeypatch, server.url, tmp_path)
        code, out, _ = run("push", "net.test", "someone/new")
        commit = server.heads["someone/new"]
    assert (code, out) == (0, f"someone/new@{commit}  sha256 {SHA256}\n")
    files = server.commits["someone/new"][commit]
    assert files["model.safetensors"] == b"bundled"
    card = json.loads(files["config.json"])
    assert (card["name"], card["file"], card["sha256"]) == ("net.test", "model.safetensors", SHA256)


def test_push_to_no_repository_is_a_usage_error(run: Run, bundle: Path) -> None:
    code, out, err = run("push", "net.test", "new")
    assert (code, out) == (2, "")
    assert err == "restorekit: error: 'new' is no Hub repository; write user/repo\n"


def test_an_unknown_name_lists_the_bundled_ones(run: Run, bundle: Path) -> None:
    code, _, err = run("info", "net.tset")
    assert code == 69
    assert "bundled are: net.test;" in err


def test_listing_loads_no_torch() -> None:
    code = (
        "import sys\nfrom restorekit.cli.main import main\n"
        "try:\n    main(['models', 'ls', '--format', 'json'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
