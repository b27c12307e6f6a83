"""What a machine says of itself, and what to choose on machines that are not here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from quantscope import machine as m
from quantscope.backends.base import Framework, Peak
from quantscope.backends.registry import backend
from quantscope.cli import app
from quantscope.doctor import examine
from quantscope.machine import Machine, Processor
from quantscope.recommendation import Recommendation, recommend
from quantscope.report import checkup
from quantscope.report.terminal import console

SKYLAKE = {"avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
CASCADE_LAKE = {*SKYLAKE, "avx512vnni"}
SAPPHIRE_RAPIDS = {*CASCADE_LAKE, "avxvnni", "amx-int8", "amx-tile", "avx512bf16", "avx512fp16"}
LUNAR_LAKE = {"avx2", "avxvnni", "avxvnniint8"}
MACHINES: dict[str, tuple[str, set[str] | None]] = {
    "x86 without AVX2": ("x86_64", {"sse4.1", "avx"}),
    "Haswell, Zen 2": ("x86_64", {"avx2"}),
    "Skylake-X": ("x86_64", SKYLAKE),
    "Cascade Lake": ("x86_64", CASCADE_LAKE),
    "Zen 4": ("x86_64", {*CASCADE_LAKE, "avx512bf16"}),
    "Alder Lake": ("AMD64", {"avx2", "avxvnni"}),
    "Lunar Lake": ("x86_64", LUNAR_LAKE),
    "Sapphire Rapids": ("x86_64", SAPPHIRE_RAPIDS),
    "Cortex-A72": ("aarch64", set()),
    "Neoverse N1": ("aarch64", {"dotprod"}),
    "Neoverse V1": ("arm64", {"dotprod", "i8mm", "sve", "bf16"}),
    "unknown x86": ("x86_64", None),
    "POWER": ("ppc64le", {"vsx"}),
}
SATURATING = ("Haswell, Zen 2", "Skylake-X")


def processor(name: str) -> Processor:
    architecture, features = MACHINES[name]
    return Processor(name, architecture, None if features is None else frozenset(features))


def machine(name: str = "Zen 4", **changes: Any) -> Machine:
    return replace(Machine(processor(name), 4, 8, 8, None, 2**34, 2**33), **changes)


def chosen(name: str, default_threads: int = 4, **changes: Any) -> dict[str, Recommendation]:
    return {r.subject: r for r in recommend(machine(name, **changes), default_threads)}


@pytest.mark.parametrize("name", MACHINES)
def test_sums_saturate_on_x86_with_avx2_and_without_vnni_alone(name: str) -> None:
    assert processor(name).saturates == (name in SATURATING)
    found = chosen(name)["range of weights"]
    assert found.flags == (("--reduce-range",) if name in SATURATING else ())
    assert ("7 bits" in found.choice) == (name in SATURATING)


@pytest.mark.parametrize("name", MACHINES)
def test_every_choice_has_a_reason_and_flags_that_exist(name: str) -> None:
    found = chosen(name)
    assert list(found) == ["types", "range of weights", "scales of weights", "form", "threads"]
    assert all(r.choice and r.reason for r in found.values())
    arm = MACHINES[name][0] in ("aarch64", "arm64")
    assert found["types"].choice.startswith("S8S8" if arm else "U8S8")
    assert found["types"].flags[1] == ("int8" if arm else "uint8")
    assert found["form"].flags == ("--format", "qdq")
    command = get_command(app).commands["quantize"]  # type: ignore[attr-defined]
    existing = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert existing.issuperset(flag for r in found.values() for flag in r.flags if flag.startswith("--"))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("x86 without AVX2", "no fast kernel"),
        ("Haswell, Zen 2", "AVX2 without VNNI"),
        ("Skylake-X", "AVX-512 without VNNI"),
        ("Cascade Lake", "int8 by int8 has no fast kernel"),
        ("Alder Lake", "AVX-VNNI multiplies"),
        ("Sapphire Rapids", "AMX-INT8"),
        ("Cortex-A72", "neither dotprod nor i8mm"),
        ("Neoverse N1", "dotprod multiplies"),
        ("Neoverse V1", "i8mm multiplies"),
        ("unknown x86", "nothing is known"),
        ("POWER", "nothing is known"),
    ],
)
def test_the_reason_names_what_decides(name: str, word: str) -> None:
    assert word in chosen(name)["types"].reason


def test_without_dotprod_symmetric_weights_are_what_keeps_sums_in_16_bits() -> None:
    assert "-127 to 127" in chosen("Cortex-A72")["range of weights"].reason
    assert "32 bits" in chosen("Neoverse N1")["range of weights"].reason


def test_int8_activations_are_slow_in_qoperator_on_most_x86() -> None:
    assert "QOperator would run the slow kernel" in chosen("Cascade Lake")["form"].reason
    assert "slow" not in chosen("Lunar Lake")["form"].reason
    assert "no fast kernel" not in chosen("Lunar Lake")["types"].reason
    assert "slow" not in chosen("Neoverse N1")["form"].reason


@pytest.mark.parametrize(
    ("default", "changes", "threads", "word"),
    [
        (4, {}, 4, "by default"),
        (8, {}, 4, "two threads of one core"),
        (4, {"usable_cores": 2}, 2, "may use 2 cores"),
        (4, {"core_quota": 1.5}, 1, "the time of 1.5 cores"),
        (4, {"core_quota": 0.5}, 1, "the time of 0.5 cores"),
        (4, {"core_quota": 64.0}, 4, "by default"),
        (2, {}, 4, "starts 2 by default"),
        (8, {"physical_cores": None}, 8, "by default"),
    ],
)
def test_threads_are_what_can_compute_at_once(default: int, changes: dict[str, Any], threads: int, word: str) -> None:
    assert machine(**changes).threads == threads
    found = chosen("Zen 4", default, **changes)["threads"]
    assert found.choice == f"{threads} thread{'s' * (threads != 1)}"
    assert word in found.reason
    assert found.flags == (() if default == threads else ("--threads", str(threads)))


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system of control groups, in which this process is in /box/job."""
    own = tmp_path / "cgroup"
    monkeypatch.setattr(m, "_GROUPS", tmp_path / "fs")
    monkeypatch.setattr(m, "_OWN_GROUPS", own)
    own.write_text("0::/box/job\n")
    (tmp_path / "fs" / "box" / "job").mkdir(parents=True)
    return tmp_path / "fs"


def test_the_quota_is_the_least_on_the_way_up(cgroup: Path) -> None:
    assert m.machine().core_quota is None
    (cgroup / "box" / "job" / "cpu.max").write_text("max 100000\n")
    assert m.machine().core_quota is None
    (cgroup / "cpu.max").write_text("400000 100000\n")
    assert m.machine().core_quota == 4
    (cgroup / "box" / "cpu.max").write_text("150000 100000\n")
    assert m.machine().core_quota == 1.5


def test_the_quota_of_the_older_control_groups(cgroup: Path, tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("5:memory:/box\n4:cpu,cpuacct:/box\n")
    folder = cgroup / "cpu,cpuacct" / "box"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert m.machine().core_quota is None
    (folder / "cpu.cfs_quota_us").write_text("250000\n")
    assert m.machine().core_quota == 2.5


def test_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "_TOPOLOGY", tmp_path)
    assert m.machine().physical_cores is None
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / f"cpu{number}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{number}" / "topology" / "thread_siblings_list").write_text(f"{siblings}\n")
    assert m.machine().physical_cores == 2


def test_a_processor_without_a_name_in_cpuinfo_has_llvms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A Processor 9\n")
    monkeypatch.setattr(m, "CPUINFO", tmp_path / "cpuinfo")
    assert m.processor_name() == "A Processor 9"
    (tmp_path / "cpuinfo").write_text("CPU implementer\t: 0x41\n")
    assert m.processor_name()
    monkeypatch.setattr(m, "CPUINFO", tmp_path / "nothing")
    assert m.processor_name() != "A Processor 9"


def test_features_are_those_that_the_system_tells() -> None:
    """LLVM asks the processor; Linux says what it found in /proc/cpuinfo."""
    names = {"avx512_vnni": "avx512vnni", "avx_vnni": "avxvnni", "amx_int8": "amx-int8", "asimddp": "dotprod"}
    text = m.CPUINFO.read_text() if m.CPUINFO.exists() else ""
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), None)
    if line is None:
        pytest.skip("no /proc/cpuinfo that tells the flags")
    flags = {names.get(flag, flag) for flag in line.partition(":")[2].split()}
    features = m.processor().features
    assert features is not None
    for name in (*m.X86_FEATURES, "dotprod", "i8mm", "sve"):
        if m.processor().is_arm or name in m.X86_FEATURES:
            assert (name in features) == (
                name.replace("fp16", "_fp16").replace("bf16", "_bf16") in flags or name in flags
            )


def test_this_machine_is_examined_without_being_measured() -> None:
    found = examine(measure=False)
    assert found.peaks == {}
    assert found.framework == backend("onnx").framework()
    assert found.framework.default_threads >= 1
    assert 0 < found.machine.memory_free_bytes <= found.machine.memory_total_bytes
    assert found.machine.usable_cores <= found.machine.logical_cores
    values = json.loads(json.dumps(found.to_dict()))
    assert values["machine"]["processor"]["saturates"] is found.machine.processor.saturates
    assert values["command"] == found.command
    assert found.command.startswith("quantscope quantize model.onnx model.int8.onnx --data samples.npz --activations")


def test_the_page_fits_100_columns_and_says_what_int8_gains(capsys: pytest.CaptureFixture[str]) -> None:
    found = examine(measure=False)
    slow = replace(
        found, machine=machine("Skylake-X"), peaks={1: Peak(5e10, 1e11, 1e10, 1e10), 4: Peak(2e11, 4e11, 4e10, 3e10)}
    )
    slow = replace(
        slow, recommendations=recommend(slow.machine, 4), framework=Framework("A Framework", "1", "b", ("CPU",), 4)
    )
    checkup.print_checkup(console(), slow)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines[: lines.index("Quantize for this machine")])) <= 100
    assert "int8 is 2.0× float here (U8S8); S8S8 is 0.2×" in out
    assert "--reduce-range" in out
    assert "something else" not in out
    checkup.print_checkup(
        console(), replace(slow, peaks={1: Peak(5e10, 1e11, 1e10, 1e10), 4: Peak(2e11, 2e11, 4e10, 3e10)})
    )
    assert "something else" in capsys.readouterr().out
