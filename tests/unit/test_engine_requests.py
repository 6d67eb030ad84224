"""What is sent to engines, and what of their answers is not taken."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from support.engines.model_server import model_server

from service.engines import EngineAnswerError, EngineHttp, ask_engine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("content", [b"", b"secret\0token", b"secret token", b"secret\xff"])
async def test_a_token_that_cannot_be_sent_is_named_in_no_failure(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    async with model_server() as server:
        http = EngineHttp(3.0, file)
        with pytest.raises(EngineAnswerError, match=r"discovery\.token_file") as raised:
            await ask_engine(http, server.url)
        await http.close()
    assert raised.value.why == "no_token"
    assert "secret" not in str(raised.value)
    assert not server.asked


async def test_compressed_answers_are_not_asked_for() -> None:
    async with model_server() as server:
        http = EngineHttp(3.0)
        await ask_engine(http, server.url)
        assert server.headers["accept-encoding"] == "identity"
        server.answers["/v1/models"] = (200, gzip.compress(b"[" * 10**7))
        with pytest.raises(EngineAnswerError, match="no JSON"):
            await ask_engine(http, server.url)
        await http.close()
