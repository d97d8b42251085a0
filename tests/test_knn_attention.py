import hashlib
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from restorekit.ops import knn_attention as operator
from restorekit.ops.knn_attention import (
    from_patches,
    knn_attention,
    knn_attention_reference,
    matched_patches,
    patch_hashes,
    to_patches,
)

PATCH = 4


def draw(
    generator: torch.Generator,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (torch.randn(shape, generator=generator) for _ in range(3))
    return first.to(dtype), second.to(dtype), third.to(dtype)


def buckets(
    generator: torch.Generator, shape: tuple[int, int, int, int], rounds: int = 2, count: int = 6
) -> Tensor:
    patches = -(-shape[2] // PATCH) * -(-shape[3] // PATCH)
    return torch.randint(count, (shape[0], rounds, patches), generator=generator)


def dense(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend from every patch to every patch, by einsum over all pairs at once."""
    q, k, v = (to_patches(x, PATCH) for x in (queries, keys, values))
    channels = q.shape[-1]
    attention = torch.einsum("bpic,bqjc->bpqij", q, k).div(channels**0.5).softmax(-1)
    outputs = torch.einsum("bpqij,bqjc->bpqic", attention, v)
    similar = torch.einsum("bpic,bqic->bpq", q, k) / (PATCH * channels**0.5)
    mixed = torch.einsum("bpq,bpqic->bpic", similar.softmax(-1), outputs)
    return from_patches(mixed, PATCH, *queries.shape[2:])


def test_patches_keep_every_pixel(generator: torch.Generator) -> None:
    features = torch.randn(2, 3, 9, 14, generator=generator)
    patches = to_patches(features, PATCH)
    assert patches.shape == (2, 3 * 4, 16, 3)
    assert torch.equal(patches[1, 5, 6], features[1, :, 5, 6])
    assert torch.equal(from_patches(patches, PATCH, 9, 14), features)


def test_hashes_follow_equation_5(generator: torch.Generator) -> None:
    features = torch.randn(2, 3, 8, 12, generator=generator)
    rotations = torch.randn(3, PATCH**2 * 3, 5, generator=generator)
    hashes = patch_hashes(features, rotations, PATCH)
    assert hashes.shape == (2, 3, 6)
    flat = to_patches(features, PATCH).flatten(2)
    for number, rotation in enumerate(rotations):
        turned = flat / flat.norm(dim=-1, keepdim=True) @ rotation
        assert torch.equal(hashes[:, number], torch.cat((turned, -turned), -1).argmax(-1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(patch_hashes(features, rotations, PATCH), hashes)


@pytest.mark.parametrize("neighbours", [1, 2, 3, 4, 50])
@pytest.mark.parametrize("size", [(1, 1), (16, 20), (9, 14), (4, 21)])
@pytest.mark.parametrize("block_bytes", [1, 1 << 14, 1 << 30])
def test_blocks_equal_the_loops(
    generator: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
    neighbours: int,
    size: tuple[int, int],
    block_bytes: int,
) -> None:
    monkeypatch.setattr(operator, "BLOCK_BYTES", block_bytes)
    shape = (2, 3, *size)
    inputs, hashes = draw(generator, shape), buckets(generator, shape)
    expected = knn_attention_reference(*inputs, hashes, PATCH, neighbours)
    found = knn_attention(*inputs, hashes, PATCH, neighbours)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_one_bucket_and_chunk_is_dense_attention(generator: torch.Generator) -> None:
    shape = (2, 5, 12, 16)
    inputs = draw(generator, shape)
    hashes = buckets(generator, shape, rounds=1, count=1)
    found = knn_attention(*inputs, hashes, PATCH, neighbours=12)
    torch.testing.assert_close(found, dense(*inputs), rtol=1e-5, atol=1e-5)


def test_rounds_are_averaged(generator: torch.Generator) -> None:
    shape = (1, 4, 16, 16)
    inputs, hashes = draw(generator, shape), buckets(generator, shape, rounds=3)
    single = [knn_attention(*inputs, hashes[:, [n]], PATCH, 2) for n in range(3)]
    found = knn_attention(*inputs, hashes, PATCH, 2)
    torch.testing.assert_close(found, torch.stack(single).mean(0))


def test_equal_patches_get_what_one_patch_gets(generator: torch.Generator) -> None:
    piece = draw(generator, (1, 3, PATCH, PATCH))
    repeated = [x.tile(3, 5) for x in piece]
    hashes = torch.zeros(1, 2, 15, dtype=torch.long)
    found = knn_attention(*repeated, hashes, PATCH, 4)
    alone = knn_attention(*piece, hashes[..., :1], PATCH, 4)
    torch.testing.assert_close(found, alone.tile(3, 5), rtol=1e-5, atol=1e-6)


def test_permuted_patches_give_permuted_outputs(generator: torch.Generator) -> None:
    inputs = draw(generator, (1, 3, 16, 16))
    order = torch.randperm(16, generator=generator)
    hashes = torch.randperm(16, generator=generator).view(1, 1, 16)

    def permuted(features: Tensor) -> Tensor:
        return from_patches(to_patches(features, PATCH)[:, order], PATCH, 16, 16)

    found = knn_attention(*map(permuted, inputs), hashes[..., order], PATCH, 3)
    expected = permuted(knn_attention(*inputs, hashes, PATCH, 3))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_similar_patches_are_found_across_the_picture(generator: torch.Generator) -> None:
    kinds = torch.randn(6, PATCH**2 * 8, generator=generator)
    chosen = torch.arange(36) % 6
    patches = kinds[chosen] + 0.01 * torch.randn(36, PATCH**2 * 8, generator=generator)
    features = from_patches(patches.view(1, 36, PATCH**2, 8), PATCH, 24, 24)
    rotations = torch.randn(4, PATCH**2 * 8, 32, generator=generator)
    matches = matched_patches(patch_hashes(features, rotations, PATCH), 3)[0]
    assert matches.shape == (4, 36, 6)
    own_chunk = matches[..., 3:]
    alike = chosen[own_chunk] == chosen[:, None]
    assert alike.float().mean() > 0.75  # by chance 1 in 6
    assert (own_chunk == torch.arange(36)[:, None]).any(-1).all()


def test_matches_are_the_own_and_the_last_chunk() -> None:
    hashes = torch.tensor([[[2, 0, 1, 0, 2]]])
    expected = [
        [1, 3, 2, 0],
        [-1, -1, 1, 3],
        [1, 3, 2, 0],
        [-1, -1, 1, 3],
        [2, 0, 4, -1],
    ]
    assert matched_patches(hashes, 2)[0, 0].tolist() == expected
    assert torch.equal(matched_patches(hashes.expand(3, 2, 5), 2)[2, 1], torch.tensor(expected))


@pytest.mark.parametrize("size", [(6, 4), (5, 3)])
def test_gradients_are_right(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(operator, "BLOCK_BYTES", 2000)
    inputs = [x.requires_grad_() for x in draw(generator, (2, 1, *size), torch.float64)]
    hashes = torch.randint(3, (2, 2, -(-size[0] // 2) * -(-size[1] // 2)), generator=generator)
    assert torch.autograd.gradcheck(lambda q, k, v: knn_attention(q, k, v, hashes, 2, 2), inputs)


def test_similarities_that_cancel_do_no_harm() -> None:
    """The sum that equation 10 divides by is nearly 0 here; its weights would be near 1e7."""
    key = torch.ones(1, 1, PATCH, PATCH)
    keys = torch.cat((key, -(1 - 1e-7) * key), -1)
    queries = torch.ones_like(keys).requires_grad_()
    values = torch.cat((key, 3 * key), -1)
    hashes = torch.zeros(1, 1, 2, dtype=torch.long)
    attended = knn_attention(queries, keys, values, hashes, PATCH, 2)
    assert attended.min() >= 1
    assert attended.max() <= 3
    attended.sum().backward()
    assert queries.grad is not None
    assert queries.grad.abs().max() < 10


def test_bfloat16_stays_near_float64(generator: torch.Generator) -> None:
    shape = (2, 16, 24, 20)
    inputs = draw(generator, shape, torch.bfloat16)
    hashes = buckets(generator, shape)
    exact = knn_attention(*(x.double() for x in inputs), hashes, PATCH, 4)
    rough = knn_attention(*inputs, hashes, PATCH, 4)
    assert rough.dtype == torch.bfloat16
    assert (rough.double() - exact).norm() / exact.norm() < 1e-2


def test_bfloat16_gradients_stay_near_float64(generator: torch.Generator) -> None:
    shape = (1, 16, 16, 16)
    inputs = draw(generator, shape, torch.bfloat16)
    hashes, weights = buckets(generator, shape), torch.randn(shape, generator=generator)
    found = []
    for dtype in (torch.bfloat16, torch.float64):
        needing = [x.detach().to(dtype).requires_grad_() for x in inputs]
        (knn_attention(*needing, hashes, PATCH, 4) * weights.to(dtype)).sum().backward()
        found.append([x.grad.double() for x in needing if x.grad is not None])
    for rough, exact in zip(*found, strict=True):
        assert (rough - exact).norm() / exact.norm() < 2e-2


def test_any_memory_layout_gives_the_same(generator: torch.Generator) -> None:
    shape = (2, 8, 12, 12)
    inputs, hashes = draw(generator, shape), buckets(generator, shape)
    last = [x.to(memory_format=torch.channels_last) for x in inputs]
    expected = knn_attention(*inputs, hashes, PATCH, 4)
    assert torch.equal(knn_attention(*last, hashes, PATCH, 4), expected)


def test_no_tensor_holds_all_pairs(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, neighbours = 1 << 16, 4
    monkeypatch.setattr(operator, "BLOCK_BYTES", block)
    shape = (1, 8, 64, 64)
    needing = [x.requires_grad_() for x in draw(generator, shape)]
    hashes = buckets(generator, shape)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    with Watch():
        knn_attention(*needing, hashes, PATCH, neighbours).sum().backward()
    features = 4 * needing[0].numel()
    all_pairs = 4 * 64 * 64 * 2 * neighbours * PATCH**2
    assert largest <= max(features, block)
    assert largest < all_pairs / 10


def test_the_same_input_gives_the_same_output_in_another_process(
    generator: torch.Generator,
) -> None:
    code = (
        "import hashlib, torch; torch.set_num_threads(1)\n"
        "from restorekit.models import create_model\n"
        "torch.manual_seed(5)\n"
        "model = create_model('kit', dict(width=8, blocks=[1, 1], ffn_ratios=[1.0, 1.0])).eval()\n"
        "picture = torch.rand(1, 3, 40, 56)\n"
        "with torch.no_grad(): outputs = [model(picture).numpy().tobytes() for _ in range(2)]\n"
        "print(*(hashlib.sha256(x).hexdigest() for x in outputs))"
    )
    digests = set()
    for _ in range(2):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        digests |= set(result.stdout.split())
    assert len(digests) == 1
    assert digests != {hashlib.sha256(b"").hexdigest()}
