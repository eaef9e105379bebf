"""Memory that is freed stays with the process for the next step."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
import resource, sys
import torch
from surgery.train.device import make_accelerator

make_accelerator("cpu", "fp32")
for _ in range(8):  # the heap grows with the first ones
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.glibc
def test_a_large_tensor_takes_the_memory_of_the_one_before():
    out = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert int(out.stdout.split()[-1]) < 2**14 / 100  # of its pages of 4 KiB
