"""The rules of the protos: which changes are refused, and where generated code finds its place."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from support.paths import ROOT

BUF = Path(sys.executable).with_name("buf")
V1 = "proto/kvatlas/v1/"


def buf(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUF, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the protos, released as they are."""
    folder = tmp_path_factory.mktemp("module")
    shutil.copytree(ROOT / "proto", folder / "proto")
    shutil.copy(ROOT / "buf.yaml", folder)
    built = buf(folder, "build", "-o", "released.binpb")
    assert built.returncode == 0, built.stderr
    return folder


def breaks(module: Path, tmp_path: Path, file: str, old: str, new: str) -> str:
    """What buf says after a change of one file; empty if the change is allowed."""
    folder = tmp_path / "changed"
    shutil.copytree(module, folder)
    path = folder / V1 / file
    text = path.read_text()
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    path.write_text(changed)
    assert buf(folder, "build").returncode == 0, "the changed protos are none"
    done = buf(folder, "breaking", "--against", "released.binpb")
    assert (done.returncode == 0) == (done.stdout == "")
    return done.stdout


REFUSED = {
    "a field is removed": ("scoring.proto", r"\n  string lora_name = 4;", ""),
    "a field is removed, and only its number reserved": (
        "scoring.proto",
        r"\n  string lora_name = 4;",
        "\n  reserved 4;",
    ),
    "a field has another number": (
        "scoring.proto",
        "string lora_name = 4;",
        "string lora_name = 99;",
    ),
    "a field has another type": ("scoring.proto", "string lora_name = 4;", "uint64 lora_name = 4;"),
    "a field has another name": ("scoring.proto", "string lora_name = 4;", "string adapter = 4;"),
    "a field becomes a list": (
        "scoring.proto",
        "string lora_name = 4;",
        "repeated string lora_name = 4;",
    ),
    "a field leaves its oneof": (
        "scoring.proto",
        r"(  oneof input \{\n(?:.*\n)*?)    string text = 1;\n((?:.*\n)*?  \})",
        r"\1\2\n  string text = 1;",
    ),
    "a reserved number is free again": ("fleet.proto", r"\n  reserved 6;", ""),
    "a reserved name is free again": ("fleet.proto", r'\n  reserved "backward_frames";', ""),
    "an rpc has another name": ("scoring.proto", r"rpc Score\(", "rpc Rate("),
    "an rpc is removed": ("fleet.proto", r"  rpc ForgetPod\(.*\n", ""),
    "an rpc answers another message": (
        "scoring.proto",
        r"returns \(ScoreResponse\)",
        "returns (ScoreManyResponse)",
    ),
    "an rpc becomes a stream": (
        "scoring.proto",
        r"returns \(ScoreResponse\)",
        "returns (stream ScoreResponse)",
    ),
    "a service has another name": ("scoring.proto", "service ScoringService", "service Scoring"),
    "an enum value is removed": ("trust.proto", r"  TRUST_STATE_UNKNOWN = 6;\n", ""),
    "an enum value has another number": (
        "trust.proto",
        "TRUST_STATE_UNKNOWN = 6",
        "TRUST_STATE_UNKNOWN = 7",
    ),
    "an enum value has another name": (
        "trust.proto",
        "TRUST_STATE_UNKNOWN = 6",
        "TRUST_STATE_NEVER_HEARD = 6",
    ),
}

ALLOWED = {
    "a message is added": ("trust.proto", "\\Z", "\nmessage Added {\n  string added = 1;\n}\n"),
    "a field is added": (
        "scoring.proto",
        "string lora_name = 4;",
        "string lora_name = 4;\n  string added = 9000;",
    ),
    "an enum value is added": (
        "trust.proto",
        "TRUST_STATE_UNKNOWN = 6;",
        "TRUST_STATE_UNKNOWN = 6;\n  TRUST_STATE_ADDED = 7;",
    ),
    "an rpc is added": (
        "scoring.proto",
        r"  rpc Score\(",
        "  rpc Added(ScoreRequest) returns (ScoreResponse);\n  rpc Score(",
    ),
    "a field is removed, its number and its name reserved": (
        "scoring.proto",
        r"\n  string lora_name = 4;",
        '\n  reserved 4;\n  reserved "lora_name";',
    ),
    "a comment says something else": ("trust.proto", "// Not set.", "// Nothing."),
}


@pytest.mark.parametrize("change", REFUSED)
def test_a_change_that_breaks_callers_is_refused(module: Path, tmp_path: Path, change: str) -> None:
    assert breaks(module, tmp_path, *REFUSED[change])


@pytest.mark.parametrize("change", ALLOWED)
def test_a_change_that_callers_do_not_notice_is_allowed(
    module: Path, tmp_path: Path, change: str
) -> None:
    assert breaks(module, tmp_path, *ALLOWED[change]) == ""


def test_a_message_with_another_name_is_refused(module: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(module, folder)
    for path in (folder / V1).glob("*.proto"):
        path.write_text(re.sub(r"\bPodRank\b", "RankOfPod", path.read_text()))
    done = buf(folder, "breaking", "--against", "released.binpb")
    assert done.returncode != 0
    assert "PodRank" in done.stdout


def test_what_is_here_breaks_nothing_that_was_released() -> None:
    done = buf(ROOT, "breaking", "--against", "proto/released.binpb")
    assert done.returncode == 0, done.stdout


def test_every_proto_names_a_go_package_of_its_own_proto_package(module: Path) -> None:
    """Go needs one directory for each proto package; its last part is the version or the name."""
    files = descriptor_pb2.FileDescriptorSet.FromString((module / "released.binpb").read_bytes())
    packages = {(file.package, file.options.go_package) for file in files.file}
    assert packages == {
        ("kvatlas.v1", "github.com/kvatlas/kvatlas/go/kvatlas/v1;kvatlasv1"),
        ("indexer.v1", "github.com/kvatlas/kvatlas/go/kvatlas/compat/indexer/v1;indexerv1"),
        ("tokenization", "github.com/kvatlas/kvatlas/go/kvatlas/compat/tokenization;tokenization"),
    }
