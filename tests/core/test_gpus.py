"""GPUs as nvidia-smi reports them; tests put a script of that name on PATH."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.common import machine
from harness.cli.diagnosis import command as doctor
from harness.core.gpus import Gpu, list_gpus, visible_gpus
from tests.support.commands import wait_until

GIB = 1 << 30
TWO = """\
0, GPU-11111111-aaaa, NVIDIA A100 80GB PCIe, 81920, 80000, 580.65.06, 8.0
1, GPU-22222222-bbbb, NVIDIA A100 80GB PCIe, 81920, 1024, 580.65.06, 8.0
"""


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the script that runs as nvidia-smi; each test writes it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "nvidia-smi"


def write(script: Path, body: str, first: str = "#!/bin/sh\n") -> None:
    script.write_text(first + body)
    script.chmod(0o755)


def printing(text: str) -> str:
    return f"cat <<'END'\n{text}END\n"


def test_all_gpus_are_listed(smi: Path) -> None:
    write(smi, printing(TWO))
    first, second = list_gpus() or ()
    assert first == Gpu(0, "GPU-11111111-aaaa", "NVIDIA A100 80GB PCIe", 81920 << 20, 80000 << 20, "580.65.06", (8, 0))
    assert (second.index, second.free) == (1, GIB)
    assert first.as_text() == "NVIDIA A100 80GB PCIe, 81920 MiB, 580.65.06"


def test_the_query_is_repeated_without_compute_capability_for_old_drivers(smi: Path) -> None:
    old = printing("0, GPU-a, Tesla V100-SXM2-16GB, 16160, 16000, 450.80.02\n")
    write(smi, f'case "$1" in *compute_cap*) echo "Field is not valid"; exit 2;; esac\n{old}')
    assert list_gpus() == [Gpu(0, "GPU-a", "Tesla V100-SXM2-16GB", 16160 << 20, 16000 << 20, "450.80.02")]


def test_memory_that_is_not_reported_is_unknown(smi: Path) -> None:
    write(smi, printing("0, GPU-a, NVIDIA GB10, [N/A], [N/A], 580.95, 12.1\n"))
    assert list_gpus() == [Gpu(0, "GPU-a", "NVIDIA GB10", None, None, "580.95", (12, 1))]
    assert Gpu(0, "", "NVIDIA GB10").as_text() == "NVIDIA GB10, memory unknown"


@pytest.mark.parametrize(
    "body", ["echo NVIDIA-SMI has failed; exit 9\n", "echo No devices were visible\n", "printf '\\377\\376, x\\n'\n"]
)
def test_a_failing_nvidia_smi_gives_no_gpus(smi: Path, body: str) -> None:
    write(smi, body)
    assert list_gpus() == []


def test_a_missing_or_invalid_nvidia_smi_gives_no_gpus(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(smi, "", first="\x7fELF this is no program")
    assert list_gpus() == []
    monkeypatch.setenv("PATH", "")
    assert list_gpus() == []


@pytest.mark.parametrize("body", ["sleep 600\n", "trap '' TERM INT\nsleep 600 & sleep 600; wait\n", "exec sleep 600\n"])
def test_a_hanging_nvidia_smi_times_out_and_is_killed(smi: Path, body: str) -> None:
    write(smi, body)
    started = time.monotonic()
    assert list_gpus(0.3) is None
    assert time.monotonic() - started < 3
    wait_until(lambda: not any(str(smi) in (p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])))


def test_doctor_makefile_and_benchmarks_handle_a_hanging_or_failing_nvidia_smi(
    smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three report that there is no GPU, or that the driver hangs."""
    root = Path(__file__).parents[2]

    def makefile_gpu() -> str:
        words = ["make", "-s", "--eval", "shown: ; @echo [$(GPU)]", "shown", "GPU_SECONDS=1"]
        return subprocess.run(words, cwd=root, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    monkeypatch.setattr("harness.core.gpus.SECONDS", 0.3)
    write(smi, "sleep 600\n")
    assert (doctor._gpus(), makefile_gpu(), machine._gpus()) == (None, "[]", "no GPU")
    write(smi, "echo NVIDIA-SMI has failed\nexit 9\n")
    assert (doctor._gpus(), makefile_gpu(), machine._gpus()) == ([], "[]", "no GPU")
    write(smi, f'case "$1" in -L) echo "GPU 0: NVIDIA L4 (UUID: GPU-1)";; *) {printing(TWO)};; esac\n')
    assert doctor._gpus() == ["NVIDIA A100 80GB PCIe, 81920 MiB, 580.65.06"] * 2
    assert (makefile_gpu(), machine._gpus()) == ("[yes]", "GPU: NVIDIA A100 80GB PCIe, NVIDIA A100 80GB PCIe")


GPUS = [Gpu(i, f"GPU-{i}{i}{i}", "A100") for i in range(3)]
MIXED = [Gpu(0, "GPU-000", "T4"), Gpu(1, "GPU-111", "A100")]


@pytest.mark.parametrize(
    ("gpus", "environ", "seen"),
    [
        (GPUS, {}, [0, 1, 2]),
        (GPUS, {"CUDA_VISIBLE_DEVICES": "2,0"}, [2, 0]),
        (GPUS, {"CUDA_VISIBLE_DEVICES": "GPU-1,2"}, [1, 2]),
        (GPUS, {"CUDA_VISIBLE_DEVICES": ""}, []),
        (GPUS, {"CUDA_VISIBLE_DEVICES": "-1"}, []),
        (GPUS, {"CUDA_VISIBLE_DEVICES": "1,7,0"}, [1]),
        (GPUS, {"CUDA_VISIBLE_DEVICES": "GPU-"}, []),
        (GPUS, {"CUDA_VISIBLE_DEVICES": "MIG-1234"}, None),
        (MIXED, {}, None),
        (MIXED, {"CUDA_VISIBLE_DEVICES": "0"}, None),
        (MIXED, {"CUDA_VISIBLE_DEVICES": "GPU-1"}, [1]),
        (MIXED, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}, [1]),
        (MIXED, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, [0, 1]),
        ([], {}, []),
    ],
)
def test_visible_gpus_follow_cuda_environment_variables(
    gpus: list[Gpu], environ: dict[str, str], seen: list[int] | None
) -> None:
    visible = visible_gpus(gpus, environ)
    assert (visible and [gpu.index for gpu in visible]) == seen
