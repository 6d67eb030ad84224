"""The .proto files keep buf's rules, and the committed stubs are what they generate."""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROTO = ROOT / "proto"
GENERATOR = ROOT / "build" / "protos" / "bin" / "python"


def main() -> int:
    """Exit status 0 if all is well; what is not is printed."""
    faults = [*_buf(), *_stale_stubs()]
    for fault in faults:
        print(f"protos: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _buf() -> list[str]:
    commands = [["lint"], ["format", "--diff", "--exit-code", "proto"]]
    released = ROOT / "proto" / "released.binpb"
    if released.exists():
        commands.append(["breaking", "--against", str(released)])
    faults = []
    for command in commands:
        done = subprocess.run(
            ["buf", *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            faults.append(f"buf {command[0]}:\n{done.stdout}{done.stderr}")
    return faults


def _stale_stubs() -> list[str]:
    if not GENERATOR.exists():
        return [f"there is no {GENERATOR.relative_to(ROOT)} to generate stubs: run make check"]
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as fresh:
        outputs = [f"--{kind}_out={fresh}" for kind in ("python", "pyi", "grpc_python")]
        subprocess.run(
            [GENERATOR, "-m", "grpc_tools.protoc", f"-I{PROTO}", *outputs, *files], check=True
        )
        generated = _stubs(Path(fresh))
        left_over = [f"proto/{path} belongs to no proto" for path in _stubs(PROTO) - generated]
        return left_over + [
            f"proto/{path} is stale: run make protos"
            for path in sorted(generated)
            if not (PROTO / path).exists()
            or not filecmp.cmp(PROTO / path, Path(fresh) / path, shallow=False)
        ]


def _stubs(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*_pb2*.py*") if path.suffix != ".pyc"}


if __name__ == "__main__":
    sys.exit(main())
