"""k-nearest-patch local attention: patches that hash alike attend to each other, pair by pair.

KiT (Lee et al., 2022), Section 3.3. Equation 10 divides a patch's similarities by their sum; they
are signed, so the sum can vanish and the weights grow without bound. Here a softmax over the
scaled similarities takes its place: positive weights that sum to one and rank alike, with bounded
gradients everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_BYTES, ACCELERATOR_BLOCK_BYTES = 1 << 20, 1 << 26
"""Size of the products of pairs at a time: what fits a cache, or keeps an accelerator busy."""


def to_patches(features: Tensor, patch: int) -> Tensor:
    """Divide (B, C, H, W) features into (B, N, patch**2, C) patches, the last ones padded by 0."""
    height, width = features.shape[2:]
    padded = F.pad(features, (0, -width % patch, 0, -height % patch))
    batch, channels, height, width = padded.shape
    cells = padded.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch**2, channels)


def from_patches(patches: Tensor, patch: int, height: int, width: int) -> Tensor:
    """Join (B, N, patch**2, C) patches into (B, C, height, width) features."""
    batch, _, _, channels = patches.shape
    rows, columns = -(-height // patch), -(-width // patch)
    cells = patches.view(batch, rows, columns, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
    padded = cells.reshape(batch, channels, rows * patch, columns * patch)
    return padded[..., :height, :width]


def patch_hashes(features: Tensor, rotations: Tensor, patch: int) -> Tensor:
    """Return the bucket of every patch in every round by equation 5, spherical hashing.

    The length of a patch does not change its bucket, so that none is projected to the sphere.
    Float32 throughout, whatever autocast says.

    Args:
        features: (B, C, H, W).
        rotations: (h, patch**2 * C, m / 2), one matrix a round.
        patch: side of the patches.

    Returns:
        (B, h, N) integers of 0..m - 1.
    """
    place = features.device.type
    exact = torch.autocast(place, enabled=False) if torch.amp.is_autocast_available(place) else None
    with torch.no_grad(), exact or nullcontext():
        flat = to_patches(features, patch).flatten(2).to(rotations.dtype)
        turned = torch.einsum("bnd,hdm->bhnm", flat, rotations)
        nearest = turned.abs().argmax(-1, keepdim=True)
        return (nearest + turned.shape[-1] * (turned.gather(-1, nearest) < 0)).squeeze(-1)


@dataclass(frozen=True)
class Chunks:
    """Hold the chunks of one round, of all pictures in a row; padding fills a picture's last one.

    Attributes:
        rows: (1 + M, k) number of each patch among those of all pictures; chunk m is row m + 1.
        present: (1 + M, k) which of them are patches and not padding.
        first: (M) which chunks begin a picture and have none to look back to.
    """

    rows: Tensor
    present: Tensor
    first: Tensor

    @classmethod
    def sort(cls, hashes: Tensor, neighbours: int) -> Chunks:
        """Sort the (B, N) hashes of a round stably and cut them into chunks (equations 6 and 7)."""
        batch, count = hashes.shape
        offsets = count * torch.arange(batch, device=hashes.device)
        order = hashes.sort(stable=True).indices + offsets[:, None]
        padding = -count % neighbours
        rows = F.pad(order, (0, padding)).reshape(-1, neighbours)
        places = torch.arange(count + padding, device=hashes.device)
        present = (places < count).repeat(batch).view(-1, neighbours)
        first = torch.arange(len(rows), device=hashes.device) % (len(rows) // batch) == 0
        return cls(F.pad(rows, (0, 0, 1, 0)), F.pad(present, (0, 0, 1, 0)), first)

    def window(self, start: int, stop: int) -> Tensor:
        """Return which of the (stop - start, 2k) patches of chunks and their last ones count."""
        before = self.present[start:stop] & ~self.first[start:stop, None]
        return torch.cat((before, self.present[start + 1 : stop + 1]), 1)

    def blocks(self, bytes_a_chunk: int) -> Iterator[tuple[int, int]]:
        """Yield the first chunk, and the one after the last, of blocks of about that size."""
        on_cpu = self.first.device.type == "cpu"
        size = max(1, (BLOCK_BYTES if on_cpu else ACCELERATOR_BLOCK_BYTES) // bytes_a_chunk)
        for start in range(0, len(self.first), size):
            yield start, min(start + size, len(self.first))


def matched_patches(hashes: Tensor, neighbours: int) -> Tensor:
    """Return the patches that each patch attends to in each round.

    Args:
        hashes: (B, h, N) of patch_hashes.
        neighbours: k, patches of a chunk.

    Returns:
        (B, h, N, 2k) numbers of patches; -1 where there is none.
    """
    batch, rounds, count = hashes.shape
    chunks = Chunks.sort(hashes.flatten(0, 1), neighbours)
    total = len(chunks.first)
    windows = torch.cat((chunks.rows[:-1], chunks.rows[1:]), 1) % count
    windows = windows.masked_fill(~chunks.window(0, total), -1)
    own, real = chunks.rows[1:].flatten(), chunks.present[1:].flatten()
    matches = windows.new_empty(batch * rounds * count, 2 * neighbours)
    matches[own[real]] = windows.repeat_interleave(neighbours, 0)[real]
    return matches.view(batch, rounds, count, -1)


def knn_attention(
    queries: Tensor, keys: Tensor, values: Tensor, hashes: Tensor, patch: int, neighbours: int
) -> Tensor:
    """Attend from every patch to those of its chunk and of the chunk before it.

    The flattened similarity of two patches is the trace of their pixels' products, so that one
    matrix product a chunk gives both softmaxes, and another sums over pixels and patches. Blocks
    of chunks are gathered one at a time, also again in the backward pass: beside inputs and
    output, memory is a copy of each (in float32 where sums grow) and a few blocks of BLOCK_BYTES.

    Args:
        queries: (B, C, H, W).
        keys: (B, C, H, W).
        values: (B, C, H, W).
        hashes: (B, h, N) bucket of every patch in every round.
        patch: r, side of a patch; padding of the last ones is not attended to.
        neighbours: k, patches of a chunk.

    Returns:
        (B, C, H, W), the mean over the rounds.
    """
    height, width = queries.shape[2:]
    masked = None
    if height % patch or width % patch:
        inside = queries.new_ones(1, 1, height, width)
        masked = to_patches(inside, patch).expand(len(queries), -1, -1, -1).flatten() == 0
    attended: Tensor = _PairwiseAttention.apply(  # type: ignore[no-untyped-call]
        *(to_patches(x, patch) for x in (queries * queries.shape[1] ** -0.5, keys, values)),
        masked,
        hashes,
        neighbours,
    )
    return from_patches(attended, patch, height, width)


class _Block:
    """Hold a block of chunks: gathered patches, their probabilities and their weights."""

    def __init__(
        self,
        patches: tuple[Tensor, Tensor, Tensor],
        masked: Tensor | None,
        chunks: Chunks,
        start: int,
        stop: int,
    ) -> None:
        queries, keys, values = patches
        pixels, channels = queries.shape[1:]
        size = chunks.rows.shape[1]
        self.shape = stop - start, size, pixels, 2 * size, pixels
        self.window_rows = chunks.rows[start : stop + 1].flatten()
        self.own_rows = self.window_rows[size:]
        self.queries = queries[self.own_rows].reshape(-1, size * pixels, channels)
        self.keys = keys[self.window_rows].reshape(-1, channels)
        self.values = values[self.window_rows].reshape(-1, channels)
        logits = torch.bmm(self.queries, self.windows(self.keys).mT).view(self.shape)
        similar = logits.diagonal(dim1=2, dim2=4).sum(-1, dtype=_exact(logits)) / pixels**0.5
        if masked is not None:
            outside = masked.view(-1, pixels)[self.window_rows].view(-1)
            outside = outside.unfold(0, 2 * size * pixels, size * pixels)
            logits.masked_fill_(outside.view(-1, 1, 1, 2 * size, pixels), -torch.inf)
        counted = chunks.window(start, stop)[:, None]
        weights = similar.masked_fill(~counted, -torch.inf).softmax(-1)
        self.weights = weights * chunks.present[start + 1 : stop + 1, :, None]
        self.probabilities = logits.softmax(-1)

    def windows(self, rows: Tensor) -> Tensor:
        """Return the (chunks, 2k * r**2, C) overlapping view of gathered rows of pixels."""
        _, size, pixels, _, _ = self.shape
        return rows.unfold(0, 2 * size * pixels, size * pixels).mT

    def matrix(self, products: Tensor) -> Tensor:
        """Return products of pairs as one (k * r**2, 2k * r**2) matrix a chunk."""
        return products.view(len(self.queries), self.queries.shape[1], -1)

    def spread(self, weights: Tensor) -> Tensor:
        """Return (chunks, k, 2k) numbers in the shape and dtype of the products of pairs."""
        return weights[:, :, None, :, None].to(self.probabilities.dtype)

    def add_windows(self, total: Tensor, products: Tensor) -> None:
        """Add (chunks, 2k * r**2, C) products to the patches they belong to."""
        first, second = products.to(total).chunk(2, 1)
        joined = F.pad(first, (0, 0, 0, 0, 0, 1))
        joined[1:] += second
        total.index_add_(0, self.window_rows, joined.view(-1, *total.shape[1:]))


class _PairwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        masked: Tensor | None,
        hashes: Tensor,
        neighbours: int,
    ) -> Tensor:
        ctx.save_for_backward(queries, keys, values, masked, hashes)
        ctx.neighbours = neighbours
        total = torch.zeros_like(queries, dtype=_exact(queries)).flatten(0, 1)
        for block in _blocks((queries, keys, values), masked, hashes, neighbours):
            mixed = block.probabilities.mul_(block.spread(block.weights))
            attended = torch.bmm(block.matrix(mixed), block.windows(block.values))
            total.index_add_(0, block.own_rows, attended.view(-1, *total.shape[1:]).to(total))
        return total.div_(hashes.shape[1]).view(queries.shape).to(queries)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, masked, hashes = ctx.saved_tensors
        exact = _exact(queries)
        totals = [torch.zeros_like(x, dtype=exact).flatten(0, 1) for x in (queries, keys, values)]
        for_queries, for_keys, for_values = totals
        rows = (gradient / hashes.shape[1]).flatten(0, 1)
        for block in _blocks((queries, keys, values), masked, hashes, ctx.neighbours):
            output = rows[block.own_rows].reshape(block.queries.shape)
            weights, spread = block.weights, block.spread(block.weights)
            mixed = block.probabilities * spread
            block.add_windows(for_values, torch.bmm(block.matrix(mixed).mT, output))
            change = torch.bmm(output, block.windows(block.values).mT).view(block.shape)
            shares = (change * block.probabilities).sum(-1)
            inner = change.sub_(shares[..., None]).mul_(mixed)
            by_weight = shares.sum(2, dtype=exact)
            by_weight = weights * (by_weight - (weights * by_weight).sum(-1, keepdim=True))
            trace = inner.diagonal(dim1=2, dim2=4)
            trace += (by_weight / block.shape[2] ** 0.5)[..., None].to(trace)
            logits = block.matrix(inner)
            to_queries = torch.bmm(logits, block.windows(block.keys))
            to_queries = to_queries.view(-1, *for_queries.shape[1:])
            for_queries.index_add_(0, block.own_rows, to_queries.to(exact))
            block.add_windows(for_keys, torch.bmm(logits.mT, block.queries))
        shaped = [x.view(queries.shape).to(queries) for x in totals]
        return *shaped, None, None, None


def _exact(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def _blocks(
    patches: tuple[Tensor, Tensor, Tensor], masked: Tensor | None, hashes: Tensor, neighbours: int
) -> Iterator[_Block]:
    """Yield every block of every round."""
    queries, keys, values = patches
    flat = queries.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1)
    chunk_bytes = 2 * (neighbours * queries.shape[2]) ** 2 * queries.element_size()
    for found in hashes.unbind(1):
        chunks = Chunks.sort(found, neighbours)
        for start, stop in chunks.blocks(chunk_bytes):
            yield _Block(flat, masked, chunks, start, stop)


def knn_attention_reference(
    queries: Tensor, keys: Tensor, values: Tensor, hashes: Tensor, patch: int, neighbours: int
) -> Tensor:
    """Compute knn_attention patch by patch, as equations 6 to 10 state it.

    Arguments and result are those of knn_attention.
    """
    batch, channels, height, width = queries.shape
    q, k, v = (to_patches(x, patch) for x in (queries, keys, values))
    inside = to_patches(queries.new_ones(1, 1, height, width), patch)[0, :, :, 0] > 0
    total = torch.zeros_like(q)
    for picture in range(batch):
        for found in hashes[picture]:
            order = found.sort(stable=True).indices.tolist()
            for place, p in enumerate(order):
                start = place // neighbours * neighbours
                near = order[max(start - neighbours, 0) : start + neighbours]
                outputs, similar = [], []
                for other in near:
                    seen = inside[other]
                    logits = q[picture, p] @ k[picture, other, seen].T / channels**0.5
                    outputs.append(logits.softmax(-1) @ v[picture, other, seen])
                    similar.append((q[picture, p] * k[picture, other]).sum())
                scale = patch * channels**0.5
                weights = torch.stack(similar).div(scale).softmax(0)
                mixed = sum(w * o for w, o in zip(weights, outputs, strict=True))
                total[picture, p] += mixed / hashes.shape[1]
    return from_patches(total, patch, height, width)
