"""A picture before and after, side by side, or on a page with a slider."""

from __future__ import annotations

import html
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

import torch

from restorekit import io
from restorekit.engine.picture import stored_part
from restorekit.errors import UsageError
from restorekit.image import Image, Layout
from restorekit.io import raw

_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>$title</title>
<style>
  figure { --split: 50%; display: inline-block; margin: 0; position: relative }
  figure::after { background: #fff; bottom: 0; content: ""; left: var(--split);
    position: absolute; top: 0; width: 2px }
  img { display: block; max-width: 100% }
  img + img { clip-path: inset(0 0 0 var(--split)); left: 0; position: absolute; top: 0 }
  input { cursor: ew-resize; height: 100%; left: 0; margin: 0; opacity: 0; position: absolute;
    top: 0; width: 100%; z-index: 1 }
</style>
<figure>
  <img alt="before" src="$before">
  <img alt="after" src="$after">
  <input type="range" min="0" max="100" step="0.1" value="50" aria-label="before and after"
    oninput="this.parentNode.style.setProperty('--split', this.value + '%')">
</figure>
</html>
""")


def write_comparison(
    source: Path,
    target: Path,
    path: Path,
    crop: tuple[int, int, int, int] | None = None,
    strip: str = "none",
    *,
    overwrite: bool = False,
) -> None:
    """Write an input and its output as one picture that shows the input to the left.

    A path that ends in .html becomes a page that holds both, as JPEG, and a slider between them.

    Args:
        source: file before.
        target: file after.
        path: file to write.
        crop: x, y, width and height that the output was restricted to.
        strip: metadata to leave out, as of io.write_image.
        overwrite: whether a file that is there goes.

    Raises:
        OutputExistsError: there is one, and it stays.
        OutputError: the file cannot be written.
        UsageError: the two do not fit each other.
    """
    before, after = _finished(source), _finished(target)
    if crop is not None and before.pixels.shape[1:] != after.pixels.shape[1:]:
        before = before.crop(*stored_part(before, crop))
    if before.pixels.shape[1:] != after.pixels.shape[1:]:
        raise UsageError(f"{source} and {target} differ in size; nothing to compare")
    if path.suffix.lower() == ".html":
        _write_page(before, after, path, source.name, strip, overwrite=overwrite)
        return
    planes = max(len(before.pixels), len(after.pixels))
    pair = [image.to_srgb().pixels.expand(planes, -1, -1) for image in (before, after)]
    orientation = before.metadata.orientation
    if orientation in (2, 3, 6, 7):  # shown from right to left
        pair.reverse()
    pixels = torch.cat(pair, dim=-2 if orientation >= 5 else -1)
    layout = Layout.GRAY if planes == 1 else Layout.RGB
    image = replace(before.to_srgb(), pixels=pixels, layout=layout, alpha=None)
    io.write_image(image, path, strip=strip, overwrite=overwrite)


def _write_page(
    before: Image, after: Image, path: Path, title: str, strip: str, *, overwrite: bool
) -> None:
    embedded = []
    with TemporaryDirectory(prefix="restorekit-") as folder:
        shown = Path(folder) / "shown.jpg"
        for image in (before, after):
            io.write_image(image, shown, strip=strip)
            embedded.append(f"data:image/jpeg;base64,{b64encode(shown.read_bytes()).decode()}")
    page = _PAGE.substitute(title=html.escape(title), before=embedded[0], after=embedded[1])
    with io.new_file(path, overwrite=overwrite) as part:
        part.write_text(page, encoding="utf-8", errors="replace")


def _finished(path: Path) -> Image:
    image = io.read_image(path)
    return raw.develop(image) if image.layout is Layout.BAYER else image
