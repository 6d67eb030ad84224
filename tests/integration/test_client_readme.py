"""The examples in the README of the client, against a real service."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import pytest
from support.paths import ROOT
from support.services.one_pod import MODEL, POD, block_stored, frame, service_with_pod

README = (ROOT / "client" / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PRINTED = [
    [f"{POD} 4.0 48 1", "promised: 48"],
    [],
    ["[1, 2, 3]", "total_tokens: 48"],
    [],
]


@pytest.mark.parametrize(("example", "printed"), list(zip(EXAMPLES, PRINTED, strict=True)))
async def test_an_example_of_the_readme_does_what_it_says(example: str, printed: list[str]) -> None:
    async with service_with_pod(models=[{"name": MODEL}]) as (service, pod):
        pod.send(frame(0, block_stored(list(range(64)))))
        await service.until_applied({(POD, 0): 0})
        program = example.replace("kvatlas:50051", service.application.addresses[0])
        program = program.replace("my-model", MODEL)
        program = re.sub(r"timeout=0\.\d+", "timeout=60", program)  # a busy machine is slow
        command = [sys.executable, "-W", "error", "-P", "-c", program]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    for text in printed:
        assert text in done.stdout
