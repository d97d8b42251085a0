import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from restorekit import hub
from restorekit.errors import ConfigError, OutputError, UnavailableError, UsageError
from restorekit.hub import ModelCard, store
from restorekit.models import RestorationModel, architectures, create_model
from tests.hub_server import CARD, HubServer, bundle_of, running_hub, stored, use_hub

REPO = "someone/denoiser"


def tiny() -> tuple[RestorationModel, ModelCard]:
    architecture = architectures()["kbnet_s"]
    config = json.loads(json.dumps(asdict(architecture.tiny)))
    torch.manual_seed(0)
    model = create_model("kbnet_s", config).eval()
    return model, replace(CARD, name="kbnet_s.test", architecture="kbnet_s", config=config)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with running_hub() as server:
        use_hub(monkeypatch, server.url, tmp_path / "cache")
        yield server


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = bundle_of(tmp_path / "weights", b"bundled")
    monkeypatch.setattr(store, "weights_folder", lambda: folder)
    return folder


class TestModelCard:
    def test_json_round_trip(self) -> None:
        text = replace(CARD, repo=REPO, revision="main").to_text()
        assert ModelCard.from_json(json.loads(text)) == replace(CARD, repo=REPO, revision="main")

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"licenze": "MIT"}, "unknown fields: licenze"),
            ({"name": 3}, "'name' .* wrong type"),
            ({"name": ""}, None),
            ({"config": []}, "'config' .* wrong type"),
            ({"repo": 1}, "'repo' .* wrong type"),
            ({"file": "../model.safetensors"}, "safetensors file name"),
            ({"file": "model.pth"}, "safetensors file name"),
            ({"transfer": "gamma"}, "'transfer'"),
            ({"layout": "cmyk"}, "'layout'"),
            ({"scores": {"drawn pictures": "high"}}, "'drawn pictures' .* no number"),
            ({"scores": {"drawn pictures": float("nan")}}, "'drawn pictures' .* no number"),
        ],
    )
    def test_fields_are_checked(self, changes: dict[str, object], complaint: str | None) -> None:
        values = CARD.to_json() | changes
        if complaint is None:
            assert ModelCard.from_json(values).to_json() == values
            return
        with pytest.raises(ConfigError, match=complaint):
            ModelCard.from_json(values)

    def test_a_missing_field_is_named(self) -> None:
        values = CARD.to_json()
        del values["task"]
        with pytest.raises(ConfigError, match="no 'task'"):
            ModelCard.from_json(values)

    def test_a_card_is_an_object(self) -> None:
        with pytest.raises(ConfigError, match="JSON object"):
            ModelCard.from_json(["net"])


class TestBundled:
    def test_weights_lie_in_the_package_or_beside_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(store, "__file__", str(tmp_path / "restorekit" / "hub" / "store.py"))
        assert hub.weights_folder() == tmp_path / "weights"
        (tmp_path / "restorekit" / "weights").mkdir(parents=True)
        assert hub.weights_folder() == tmp_path / "restorekit" / "weights"

    def test_the_weights_of_this_checkout_are_as_stated(self) -> None:
        for name, card in hub.bundled_cards().items():
            assert hub.fetch(name, offline=True)[0] == card

    def test_a_name_gives_its_card_and_file(self, bundle: Path) -> None:
        card, path = hub.fetch("net.test")
        assert card.sha256 == hashlib.sha256(b"bundled").hexdigest()
        assert path == bundle / "net.test.safetensors"

    def test_an_unknown_name_lists_the_bundled_ones(self, bundle: Path) -> None:
        with pytest.raises(UnavailableError, match=r"'net\.tset'; bundled are: net\.test;"):
            hub.find_card("net.tset")

    def test_a_damaged_file_is_refused(self, bundle: Path) -> None:
        (bundle / "net.test.safetensors").write_bytes(b"bundlex")
        with pytest.raises(UnavailableError, match="sha256"):
            hub.fetch("net.test")

    def test_a_missing_file_is_named(self, bundle: Path) -> None:
        (bundle / "net.test.safetensors").unlink()
        with pytest.raises(UnavailableError, match=r"net\.test\.safetensors: No such file"):
            hub.fetch("net.test")

    @pytest.mark.parametrize(
        ("manifest", "complaint"),
        [
            ({"version": 2, "models": []}, "version"),
            ({"version": 1, "models": [CARD.to_json()]}, "no sha256 is stated for net.test"),
        ],
    )
    def test_a_wrong_manifest_is_refused(
        self, bundle: Path, manifest: object, complaint: str
    ) -> None:
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ConfigError, match=complaint):
            hub.bundled_cards()


class TestFolder:
    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_save_and_load(self, tmp_path: Path, dtype: str) -> None:
        model, card = tiny()
        saved = hub.save_model(model, card, tmp_path / "runs" / "x", dtype=dtype)
        content = (tmp_path / "runs" / "x" / "model.safetensors").read_bytes()
        assert saved == replace(card, sha256=hashlib.sha256(content).hexdigest())
        loaded = hub.load_model(str(tmp_path / "runs" / "x"))
        assert loaded.card == saved
        assert not loaded.model.training
        tolerance = {"float32": 0.0, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
        found = loaded.model.state_dict()
        for name, tensor in model.state_dict().items():
            assert found[name].dtype == tensor.dtype
            torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=1e-7)

    def test_both_files_have_the_mode_of_new_files(self, tmp_path: Path) -> None:
        hub.save_model(*tiny(), tmp_path)
        (tmp_path / "new").touch()
        assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1

    def test_saving_again_replaces_both_files(self, tmp_path: Path) -> None:
        model, card = tiny()
        hub.save_model(model, card, tmp_path)
        with torch.no_grad():
            next(model.parameters()).add_(1)
        hub.save_model(model, card, tmp_path)
        loaded = hub.load_model(str(tmp_path)).model
        assert torch.equal(next(loaded.parameters()), next(model.parameters()))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]

    def test_a_changed_file_is_refused(self, tmp_path: Path) -> None:
        hub.save_model(*tiny(), tmp_path)
        path = tmp_path / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
        with pytest.raises(UnavailableError, match="sha256"):
            hub.load_model(str(tmp_path))

    @pytest.mark.parametrize("change", ["drop", "rename", "reshape"])
    def test_tensors_must_fit(self, tmp_path: Path, change: str) -> None:
        card = hub.save_model(*tiny(), tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        name = min(tensors)
        tensor = tensors.pop(name)
        if change == "rename":
            tensors["aa"] = tensor
        if change == "reshape":
            tensors[name] = tensor.new_zeros(*tensor.shape, 2)
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(replace(card, sha256="").to_text())
        with pytest.raises(UnavailableError, match="does not fit the kbnet_s of its card"):
            hub.load_model(str(tmp_path))

    def test_a_file_that_is_no_safetensors_is_refused(self, tmp_path: Path) -> None:
        card = hub.save_model(*tiny(), tmp_path)
        (tmp_path / "model.safetensors").write_bytes(b"PK\x03\x04 pickle")
        (tmp_path / "config.json").write_text(replace(card, sha256="").to_text())
        with pytest.raises(UnavailableError, match="no readable safetensors"):
            hub.load_model(str(tmp_path))

    @pytest.mark.parametrize(
        "changes",
        [
            {"architecture": "resnet"},
            {"config": {"width": "x"}},
            {"config": {"bases": -1}},
            {"architecture": "kbnet_xs", "config": {"bases": [0]}},
        ],
    )
    def test_a_card_of_no_network_is_a_config_error(
        self, tmp_path: Path, changes: dict[str, object]
    ) -> None:
        card = hub.save_model(*tiny(), tmp_path)
        (tmp_path / "config.json").write_text(replace(card, **changes).to_text())  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"cannot build kbnet_s\.test from its card"):
            hub.load_model(str(tmp_path))

    def test_a_card_of_other_planes_is_a_config_error(self, tmp_path: Path) -> None:
        card = hub.save_model(*tiny(), tmp_path)
        other = "gray" if card.layout == "rgb" else "rgb"
        (tmp_path / "config.json").write_text(replace(card, layout=other).to_text())
        with pytest.raises(ConfigError, match=f"says {other}, but its network takes"):
            hub.load_model(str(tmp_path))

    def test_a_folder_without_a_card(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match=r"is no model folder: it holds no config\.json"):
            hub.find_card(str(tmp_path))

    def test_a_card_that_is_no_json(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(ConfigError, match=r"config\.json is no JSON"):
            hub.find_card(str(tmp_path))

    @pytest.mark.parametrize("reference", ["../x", "./none/x", "a/b/c"])
    def test_a_path_to_no_folder_asks_no_hub(self, server: HubServer, reference: str) -> None:
        with pytest.raises(UnavailableError, match="there is no model"):
            hub.find_card(reference)
        assert server.requests == []

    def test_a_file_is_no_reference(self, tmp_path: Path) -> None:
        (tmp_path / "net.pth").write_bytes(b"")
        with pytest.raises(UnavailableError, match="restorekit models import"):
            hub.find_card(str(tmp_path / "net.pth"))

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_bytes(b"")
        with pytest.raises(OutputError, match="cannot write the model folder"):
            hub.save_model(*tiny(), tmp_path / "taken")


class TestHub:
    def test_a_commit_is_fetched_once(self, server: HubServer) -> None:
        commit = server.publish(REPO, stored(b"weights"))
        card, path = hub.fetch(f"{REPO}@{commit}")
        assert path.read_bytes() == b"weights"
        assert (card.repo, card.revision, card.name) == (REPO, commit, "net.test")
        assert set(server.requests) == {
            f"{method} /{REPO}/resolve/{commit}/{file}"
            for method in ("HEAD", "GET")
            for file in ("config.json", "model.safetensors")
        }
        server.requests.clear()
        assert hub.fetch(f"{REPO}@{commit}") == (card, path)
        assert server.requests == []

    def test_main_is_resolved_to_its_commit(self, server: HubServer) -> None:
        old = server.publish(REPO, stored(b"old"))
        assert hub.find_card(REPO).revision == old
        new = server.publish(REPO, stored(b"new"))
        card, path = hub.fetch(REPO)
        assert card.revision == new
        assert path.read_bytes() == b"new"

    def test_a_card_alone_downloads_no_weights(self, server: HubServer) -> None:
        server.publish(REPO, stored(b"weights"))
        assert hub.locate(REPO)[1] is None
        assert not [line for line in server.requests if "model.safetensors" in line]

    def test_offline_uses_the_cache_alone(self, server: HubServer) -> None:
        server.publish(REPO, stored(b"weights"))
        with pytest.raises(UnavailableError, match="offline; run `restorekit models pull"):
            hub.fetch(REPO, offline=True)
        assert server.requests == []
        fetched = hub.fetch(REPO)
        server.requests.clear()
        assert hub.fetch(REPO, offline=True) == fetched
        assert server.requests == []

    def test_a_folder_that_is_not_there_is_named_before_the_hub(self, server: HubServer) -> None:
        words = "^there is no folder runs/mine here and no bundled model of that name; .*the Hub: "
        for offline in (True, False):
            with pytest.raises(UnavailableError, match=words):
                hub.find_card("runs/mine", offline=offline)

    def test_a_cached_branch_outlives_the_network(self, server: HubServer) -> None:
        server.publish(REPO, stored(b"weights"))
        fetched = hub.fetch(REPO)
        server.status = 503
        assert hub.fetch(REPO) == fetched

    def test_a_card_without_sha256_is_given_that_of_the_file(self, server: HubServer) -> None:
        server.publish(REPO, stored(b"weights", sha256=""))
        assert hub.fetch(REPO)[0].sha256 == hashlib.sha256(b"weights").hexdigest()

    def test_the_file_may_be_fetched_again_after_it_was_deleted(self, server: HubServer) -> None:
        server.publish(REPO, stored(b"weights"))
        server.corrupted.add("model.safetensors")
        with pytest.raises(UnavailableError, match="delete the file") as caught:
            hub.fetch(REPO)
        blob = next(Path(word) for word in str(caught.value).split() if "blobs" in word)
        blob.unlink()
        server.corrupted.clear()
        assert hub.fetch(REPO)[1].read_bytes() == b"weights"

    def test_a_card_that_is_none_is_refused(self, server: HubServer) -> None:
        server.publish(REPO, {"config.json": b'{"model_type": "bert"}'})
        with pytest.raises(UnavailableError, match="no restorekit model: .*model_type"):
            hub.find_card(REPO)

    def test_load_model(self, server: HubServer, tmp_path: Path) -> None:
        model, card = tiny()
        hub.save_model(model, card, tmp_path)
        names = ("config.json", "model.safetensors")
        commit = server.publish(REPO, {name: (tmp_path / name).read_bytes() for name in names})
        loaded = hub.load_model(f"{REPO}@{commit}")
        assert loaded.card.revision == commit
        pixels = torch.rand(1, 3, 24, 20)
        with torch.inference_mode():
            assert torch.equal(loaded.model(pixels), model(pixels))

    def test_push_then_load(self, server: HubServer, tmp_path: Path) -> None:
        model, card = tiny()
        saved = hub.save_model(model, card, tmp_path)
        pushed = hub.push_model(str(tmp_path), "someone/new")
        assert pushed == replace(saved, repo="someone/new", revision=server.heads["someone/new"])
        assert [line for line in server.requests if line.startswith("POST")] == [
            "POST /api/repos/create",
            "POST /api/models/someone/new/preupload/main",
            "POST /api/models/someone/new/commit/main",
        ]
        assert hub.load_model("someone/new").card == pushed

    def test_push_wants_user_and_repo(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="write user/repo"):
            hub.push_model(str(tmp_path), "denoiser")


FAILURES = {
    "corrupted file": "sha256",
    "wrong sha256": "sha256",
    "corrupted card": "is no JSON",
    "no repository": "no such repository",
    "no revision": "no such revision",
    "no weights": "model.safetensors is missing",
    "server error": "HTTP status 500",
    "dropped connection": "lost again and again",
    "no network": "refused",
    "offline": "this run is offline",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_one_line_and_exit_69(failure: str, tmp_path: Path) -> None:
    files = stored(b"w" * 4096)
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    revision = ""
    with running_hub() as server:
        if failure == "corrupted file":
            server.corrupted.add("model.safetensors")
        if failure == "wrong sha256":
            files = stored(b"weights", sha256="0" * 64)
        if failure == "corrupted card":
            files["config.json"] = files["config.json"][:-9]
        if failure == "no revision":
            revision = "@v9"
        if failure == "no weights":
            del files["model.safetensors"]
        if failure == "server error":
            server.status = 500
        if failure == "dropped connection":
            files = stored(bytes(12_000_000))  # more than one read of the client
            server.dropped.add("model.safetensors")
        if failure == "offline":
            environment["HF_HUB_OFFLINE"] = "1"
        if failure != "no repository":
            server.publish(REPO, files)
        if failure == "no network":
            server.server_close()
        result = subprocess.run(
            [sys.executable, "-m", "restorekit", "models", "pull", REPO + revision],
            env=environment | {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert result.returncode == 69, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("restorekit: error: ")
    assert FAILURES[failure] in line
