"""Published checkpoints, made by name and shape, against a plain evaluation of the paper."""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restorekit import hub
from restorekit.errors import ConfigError, OutputError, UnavailableError
from restorekit.models.convert import convert_kbnet

State = dict[str, Tensor]
BASES = 4


class Published:
    """Collect random tensors under the names of a published checkpoint."""

    def __init__(self) -> None:
        self.state: State = OrderedDict()
        self.generator = torch.Generator().manual_seed(0)

    def tensor(self, name: str, *shape: int) -> None:
        self.state[name] = 0.3 * torch.randn(shape, generator=self.generator)

    def conv(self, name: str, inputs: int, outputs: int, size: int = 1, bias: bool = True) -> None:
        self.tensor(f"{name}.weight", outputs, inputs, size, size)
        if bias:
            self.tensor(f"{name}.bias", outputs)

    def norm(self, name: str, channels: int) -> None:
        self.tensor(f"{name}.weight", channels)
        self.tensor(f"{name}.bias", channels)

    def kernels(self, at: str, channels: int, group: int) -> None:
        self.tensor(f"{at}w", 1, BASES, channels * group * 9)
        self.tensor(f"{at}b", 1, BASES, channels)
        self.tensor(f"{at}ga1", 1, channels, 1, 1)
        self.tensor(f"{at}attgamma", 1, BASES, 1, 1)


def published_s(*, lightweight: bool, ffn_scale: float, channels: int = 3) -> State:
    """Return KBNet_s of width 16, encoder blocks (2, 1), a middle block, decoder blocks (1, 2)."""
    net = Published()

    def block(at: str, c: int) -> None:
        net.kernels(at, c, 4)
        for name in ("beta", "gamma"):
            net.tensor(at + name, 1, c, 1, 1)
        for name in ("norm1", "norm2"):
            net.norm(at + name, c)
        for name in ("sca.1", "conv11.0", "conv1", "conv3"):
            net.conv(at + name, c, c)
        net.conv(f"{at}conv11.1", 1 if lightweight else 4, c, 3 if lightweight else 5)
        net.conv(f"{at}conv21", 1, c, 3)
        hidden = min(c, 32)
        net.conv(f"{at}conv2.0", c // hidden, hidden, 3)
        net.conv(f"{at}conv2.2", hidden // 2, BASES)
        net.conv(f"{at}conv211", c, BASES)
        net.conv(f"{at}conv4", c, int(c * ffn_scale))
        net.conv(f"{at}conv5", int(c * ffn_scale) // 2, c)

    net.conv("intro", channels, 16, 3)
    net.conv("ending", 16, channels, 3)
    for name, c in (("encoders.0.0.", 16), ("encoders.0.1.", 16), ("encoders.1.0.", 32)):
        block(name, c)
    block("middle_blks.0.", 64)
    for name, c in (("decoders.0.0.", 32), ("decoders.1.0.", 16), ("decoders.1.1.", 16)):
        block(name, c)
    for level, c in enumerate((16, 32)):
        net.conv(f"downs.{level}", c, 2 * c, 2)
    for level, c in enumerate((64, 32)):
        net.conv(f"ups.{level}.0", c, 2 * c, bias=False)
    return net.state


def published_l() -> State:
    """Return KBNet_l of dim 24, blocks (1, 2, 1, 1), two refinement blocks, heads (1, 2, 1, 4)."""
    net = Published()

    def block(at: str, c: int, heads: int) -> None:
        hidden = c * 3 // 2
        net.norm(f"{at}norm1", c)
        net.norm(f"{at}norm2", c)
        net.kernels(f"{at}attn.", hidden, 2)
        for name in ("dwconv", "conv1"):
            net.conv(f"{at}attn.{name}.0", c, hidden, bias=False)
            net.conv(f"{at}attn.{name}.1", 1, hidden, 3, bias=False)
        net.conv(f"{at}attn.sca.1", c, hidden)
        net.conv(f"{at}attn.conv2.0", c // 24, 24, 3)
        net.conv(f"{at}attn.conv2.2", 12, BASES)
        net.conv(f"{at}attn.conv211", c, BASES)
        net.conv(f"{at}attn.project_out", hidden, c, bias=False)
        net.tensor(f"{at}ffn.temperature", heads, 1, 1)
        net.conv(f"{at}ffn.qkv", c, 3 * c, bias=False)
        net.conv(f"{at}ffn.qkv_dwconv", 1, 3 * c, 3, bias=False)
        net.conv(f"{at}ffn.project_out", c, c, bias=False)

    net.conv("patch_embed.proj", 3, 24, 3, bias=False)
    net.conv("output", 48, 3, 3, bias=False)
    block("encoder_level1.0.", 24, 1)
    block("encoder_level2.0.", 48, 2)
    block("encoder_level2.1.", 48, 2)
    block("encoder_level3.0.", 96, 1)
    block("latent.0.", 192, 4)
    block("decoder_level3.0.", 96, 1)
    block("decoder_level2.0.", 48, 2)
    block("decoder_level2.1.", 48, 2)
    block("decoder_level1.0.", 48, 1)
    block("refinement.0.", 48, 1)
    block("refinement.1.", 48, 1)
    for name, c in (("down1_2", 24), ("down2_3", 48), ("down3_4", 96)):
        net.conv(f"{name}.body.0", c, c // 2, 3, bias=False)
    for name, c in (("up4_3", 192), ("up3_2", 96), ("up2_1", 48)):
        net.conv(f"{name}.body.0", c, 2 * c, 3, bias=False)
    net.conv("reduce_chan_level3", 192, 96, bias=False)
    net.conv("reduce_chan_level2", 96, 48, bias=False)
    return net.state


def conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    pad = weight.shape[-1] // 2 if stride == 1 else 0
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, pad, groups=groups)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    scale, shift = state[f"{name}.weight"], state[f"{name}.bias"]
    return normal * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)


def gate(x: Tensor) -> Tensor:
    half = x.shape[1] // 2
    return x[:, :half] * x[:, half:]


def kba(state: State, at: str, x: Tensor, coefficients: Tensor, group: int) -> Tensor:
    """Apply every basis by the published order of w: group, out and in of the group, ky, kx."""
    _, channels, height, width = x.shape
    groups = channels // group
    w = state[f"{at}w"].view(BASES, groups, group, group, 9)
    patches = F.unfold(x, 3, padding=1).view(groups, group, 9, height * width)
    responses = torch.einsum("ngoik,gikp->ngop", w, patches).reshape(BASES, channels, -1)
    responses = responses + state[f"{at}b"].view(BASES, channels, 1)
    return torch.einsum("np,ncp->cp", coefficients[0].flatten(1), responses).view_as(x)


def coefficients_of(state: State, at: str, y: Tensor) -> Tensor:
    spatial = conv(state, f"{at}conv2.2", gate(conv(state, f"{at}conv2.0", y)))
    return spatial * state[f"{at}attgamma"] + conv(state, f"{at}conv211", y)


def channel_weights(state: State, at: str, y: Tensor) -> Tensor:
    return conv(state, f"{at}sca.1", y.mean((2, 3), keepdim=True))


def twice(state: State, first: str, second: str, x: Tensor) -> Tensor:
    return conv(state, second, conv(state, first, x))


def block_s(state: State, at: str, x: Tensor) -> Tensor:
    y = norm(state, f"{at}norm1", x)
    branch = twice(state, f"{at}conv11.0", f"{at}conv11.1", y)
    values = twice(state, f"{at}conv1", f"{at}conv21", y)
    mixed = kba(state, at, values, coefficients_of(state, at, y), 4) * state[f"{at}ga1"] + values
    fused = conv(state, f"{at}conv3", mixed * branch * channel_weights(state, at, y))
    x = x + state[f"{at}beta"] * fused
    hidden = gate(conv(state, f"{at}conv4", norm(state, f"{at}norm2", x)))
    return x + state[f"{at}gamma"] * conv(state, f"{at}conv5", hidden)


def run_s(state: State, picture: Tensor) -> Tensor:
    x = conv(state, "intro", picture)
    top = block_s(state, "encoders.0.1.", block_s(state, "encoders.0.0.", x))
    second = block_s(state, "encoders.1.0.", conv(state, "downs.0", top, stride=2))
    x = block_s(state, "middle_blks.0.", conv(state, "downs.1", second, stride=2))
    x = F.pixel_shuffle(conv(state, "ups.0.0", x), 2) + second
    x = F.pixel_shuffle(conv(state, "ups.1.0", block_s(state, "decoders.0.0.", x)), 2) + top
    x = block_s(state, "decoders.1.1.", block_s(state, "decoders.1.0.", x))
    return picture + conv(state, "ending", x)


def attention_l(state: State, at: str, x: Tensor) -> Tensor:
    _, channels, height, width = x.shape
    planes = twice(state, f"{at}qkv", f"{at}qkv_dwconv", x)[0].flatten(1)
    temperature = state[f"{at}temperature"]
    size = channels // len(temperature)
    heads = []
    for head, heat in enumerate(temperature):
        query, key, value = (planes[part * channels + head * size :][:size] for part in range(3))
        query = query / query.norm(dim=1, keepdim=True)
        key = key / key.norm(dim=1, keepdim=True)
        heads.append(torch.softmax(query @ key.T * heat, 1) @ value)
    attended = torch.cat(heads).view(1, channels, height, width)
    return conv(state, f"{at}project_out", attended)


def block_l(state: State, at: str, x: Tensor) -> Tensor:
    y = norm(state, f"{at}norm1", x)
    inner = f"{at}attn."
    branch = F.gelu(twice(state, f"{inner}dwconv.0", f"{inner}dwconv.1", y))
    values = twice(state, f"{inner}conv1.0", f"{inner}conv1.1", y)
    mixed = kba(state, inner, values, coefficients_of(state, inner, y), 2)
    mixed = mixed * state[f"{inner}ga1"] + values
    x = x + conv(state, f"{inner}project_out", branch * mixed * channel_weights(state, inner, y))
    return x + attention_l(state, f"{at}ffn.", norm(state, f"{at}norm2", x))


def run_l(state: State, picture: Tensor) -> Tensor:
    def down(name: str, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(conv(state, f"{name}.body.0", x), 2)

    def up(name: str, x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat((F.pixel_shuffle(conv(state, f"{name}.body.0", x), 2), skip), 1)

    first = block_l(state, "encoder_level1.0.", conv(state, "patch_embed.proj", picture))
    second = block_l(state, "encoder_level2.0.", down("down1_2", first))
    second = block_l(state, "encoder_level2.1.", second)
    third = block_l(state, "encoder_level3.0.", down("down2_3", second))
    x = block_l(state, "latent.0.", down("down3_4", third))
    x = conv(state, "reduce_chan_level3", up("up4_3", x, third))
    x = block_l(state, "decoder_level3.0.", x)
    x = conv(state, "reduce_chan_level2", up("up3_2", x, second))
    x = block_l(state, "decoder_level2.1.", block_l(state, "decoder_level2.0.", x))
    x = block_l(state, "decoder_level1.0.", up("up2_1", x, first))
    x = block_l(state, "refinement.1.", block_l(state, "refinement.0.", x))
    return picture + conv(state, "output", x)


CONFIG_S = {
    "channels": 3,
    "width": 16,
    "encoder_blocks": [2, 1],
    "middle_blocks": 1,
    "decoder_blocks": [1, 2],
    "bases": BASES,
    "lightweight": False,
    "ffn_scale": 2.0,
}


def assert_same_picture(state: State, run: Callable[[State, Tensor], Tensor]) -> None:
    _, _, model = convert_kbnet(state)
    model = model.double()
    exact = {name: tensor.double() for name, tensor in state.items()}
    picture = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1)).double()
    with torch.inference_mode():
        expected, found = run(exact, picture), model(picture)
    assert (expected - picture).abs().mean() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("lightweight", "ffn_scale"), [(False, 2.0), (True, 1.5)])
def test_kbnet_s_computes_what_its_checkpoint_says(lightweight: bool, ffn_scale: float) -> None:
    state = published_s(lightweight=lightweight, ffn_scale=ffn_scale)
    architecture, config, model = convert_kbnet(state)
    assert architecture == "kbnet_s"
    assert config == CONFIG_S | {"lightweight": lightweight, "ffn_scale": ffn_scale}
    assert not model.training
    assert_same_picture(state, run_s)


def test_kbnet_l_computes_what_its_checkpoint_says() -> None:
    state = published_l()
    architecture, config, _ = convert_kbnet(state)
    assert architecture == "kbnet_l"
    assert config == {
        "channels": 3,
        "width": 24,
        "blocks": [1, 2, 1, 1],
        "refinement_blocks": 2,
        "heads": [1, 2, 1, 4],
        "bases": BASES,
        "ffn_scale": 1.5,
    }
    assert_same_picture(state, run_l)


@pytest.mark.parametrize("top", [None, "net", "model", "params"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappings(top: str | None, prefix: str) -> None:
    state = published_s(lightweight=False, ffn_scale=2.0)
    plain = convert_kbnet(state)[2].state_dict()
    named = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    found = convert_kbnet({top: named} if top else named)[2].state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())


@pytest.mark.parametrize(
    "checkpoint",
    [
        [],
        {},
        {"net": [1]},
        {"net": {"intro.weight": 1}},
        {"conv.weight": torch.zeros(1)},
        {"intro.weight": torch.zeros(1)},
        {"intro.weight": torch.zeros(8, 3, 3, 3)},
        {"patch_embed.proj.weight": torch.zeros(0, 3, 3, 3)},
    ],
    ids=repr,
)
def test_what_is_no_kbnet_is_refused(checkpoint: object) -> None:
    with pytest.raises(ConfigError):
        convert_kbnet(checkpoint)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "flat"])
def test_a_checkpoint_must_fit(change: str) -> None:
    state = published_s(lightweight=False, ffn_scale=2.0)
    name = "decoders.1.1.conv3.weight"
    if change == "missing":
        del state[name]
    if change == "unknown":
        state["decoders.1.1.conv6.weight"] = state[name]
    if change == "shape":
        state[name] = state[name].flatten()
    if change == "flat":
        state["middle_blks.0.w"] = state["middle_blks.0.w"][..., :-1]
    with pytest.raises(ConfigError, match="missing, unknown or of another shape"):
        convert_kbnet(state)


def test_import_makes_a_model_folder(tmp_path: Path) -> None:
    state = published_s(lightweight=True, ffn_scale=1.5)
    torch.save({"params": state}, tmp_path / "sidd.pth")
    folder = tmp_path / "kbnet"
    card = hub.import_checkpoint(tmp_path / "sidd.pth", folder, "kbnet_s.sidd")
    assert (card.name, card.layout, card.transfer) == ("kbnet_s.sidd", "rgb", "srgb")
    loaded = hub.load_model(str(folder))
    assert loaded.card == card
    picture = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(
            loaded.model(picture), run_s(state, picture), rtol=1e-4, atol=1e-4
        )
    with pytest.raises(OutputError, match="holds a model already"):
        hub.import_checkpoint(tmp_path / "sidd.pth", folder, "kbnet_s.sidd")


@pytest.mark.parametrize(("channels", "layout"), [(1, "gray"), (3, "rgb"), (6, None)])
def test_import_tells_grey_from_colour(tmp_path: Path, channels: int, layout: str | None) -> None:
    state = published_s(lightweight=False, ffn_scale=2.0, channels=channels)
    torch.save({"net": state}, tmp_path / "net.pth")
    if layout is None:
        with pytest.raises(UnavailableError, match="takes 6 planes"):
            hub.import_checkpoint(tmp_path / "net.pth", tmp_path / "out", "net")
        return
    assert hub.import_checkpoint(tmp_path / "net.pth", tmp_path / "out", "net").layout == layout


class Payload:
    """Make a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("writer", [torch.save, "pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, writer: object) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "it-ran"
    content = {"net": published_s(lightweight=False, ffn_scale=2.0), "code": Payload(target)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(
        UnavailableError, match=r"evil\.pth is refused: .* could run code"
    ) as caught:
        hub.import_checkpoint(path, tmp_path / "out", "evil")
    assert "\n" not in str(caught.value)
    assert not target.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(40)])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(UnavailableError, match="refused: it is damaged"):
        hub.import_checkpoint(tmp_path / "net.pth", tmp_path / "out", "net")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"cannot read .*net\.pth: No such file"):
        hub.import_checkpoint(tmp_path / "net.pth", tmp_path / "out", "net")
