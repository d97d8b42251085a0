"""Compiled kernels in tests: built for processors with fewer instructions than this one, too."""

import ctypes
import os
import platform
import shutil
from pathlib import Path

import pytest

from restorekit.ops import compiled

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX") or "g++") is None or platform.system() != "Linux",
    reason="needs g++ on Linux",
)

PROCESSORS = ["native"]
if platform.machine() == "x86_64":
    PROCESSORS.append("x86-64")
    if " avx2 " in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        PROCESSORS.append("x86-64-v3")


def built_for(processor: str, name: str) -> ctypes.CDLL:
    """Return the kernels of a source file for a processor."""
    flags = [flag.replace("native", processor) for flag in compiled._FLAGS]
    return ctypes.CDLL(str(compiled.build(name, os.environ.get("CXX") or "g++", *flags)))
