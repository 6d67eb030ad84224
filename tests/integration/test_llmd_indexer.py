"""llm-d's scoring service, as its callers meet it, with stubs of a proto of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import tokenizers
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from support.models.trained import TEXT, write_tokenizer
from support.services.one_pod import MODEL, POD, block_stored, frame, service_with_pod

if TYPE_CHECKING:
    from support.services.running import RunningService

    Class = type[Any]

# Written from what is known of the original's wire format, not from our own file.
PROTO = """
syntax = "proto3";
package indexer.v1;
message GetPodScoresRequest {
  string prompt = 1; string model_name = 2; repeated string pod_identifiers = 3;
}
message GetPodScoresResponse { repeated PodScore scores = 1; }
message PodScore { string pod = 1; double score = 2; }
"""


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Class, Class]:
    """The caller's own classes of the request and of the response."""
    folder = tmp_path_factory.mktemp("protos")
    (folder / "theirs.proto").write_text(PROTO)
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}"]
    made = folder / "theirs.binpb"
    subprocess.run([*command, f"--descriptor_set_out={made}", "theirs.proto"], check=True)
    files = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(files.file[0])
    found = [
        pool.FindMessageTypeByName(f"indexer.v1.GetPodScores{n}") for n in ("Request", "Response")
    ]
    request, response = map(message_factory.GetMessageClass, found)
    return request, response


async def scores(
    service: RunningService,
    classes: tuple[Class, Class],
    prompt: str,
    *pods: str,
    model: str = MODEL,
) -> list[tuple[str, float]]:
    """The answer to a caller."""
    request, response = classes
    method: Any = service.channel.unary_unary(
        "/indexer.v1.IndexerService/GetPodScores",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    answer = await method(request(prompt=prompt, model_name=model, pod_identifiers=pods))
    return [(each.pod, each.score) for each in answer.scores]


async def test_llmd_s_callers_get_the_weighted_prefix_of_each_holder(
    tmp_path: Path, classes: tuple[Class, Class]
) -> None:
    write_tokenizer(tmp_path)
    text = " ".join(TEXT) * 4
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    reference.no_truncation()
    tokens = reference.encode(text).ids[:64]
    assert len(tokens) == 64
    other, idle = "10.0.0.2:8000", "10.0.0.3:8000"
    models = [{"name": MODEL, "tokenizer": str(tmp_path)}]
    async with service_with_pod(models=models) as (service, pod):
        pod.send(frame(0, block_stored(tokens)))
        topic = f"kv@{other}@{MODEL}"
        pod.send(frame(0, block_stored(tokens[:32], medium="CPU"), topic=topic))
        topic = f"kv@{idle}@{MODEL}"
        pod.send(frame(0, block_stored(tokens[16:]), topic=topic))
        await service.until_applied({(POD, 0): 0, (other, 0): 0, (idle, 0): 0})
        held = [(POD, 4.0), (other, pytest.approx(1.6))]
        assert sorted(await scores(service, classes, text)) == held
        assert await scores(service, classes, text, other, idle, "unheard:1") == held[1:]
        assert await scores(service, classes, "nothing of all that") == []


async def test_llmd_s_callers_are_told_what_is_wrong(
    tmp_path: Path, classes: tuple[Class, Class]
) -> None:
    write_tokenizer(tmp_path)
    models = [{"name": MODEL, "tokenizer": str(tmp_path)}]
    async with service_with_pod(models=models) as (service, _):
        for prompt, model, code in (
            ("x", "unheard", grpc.StatusCode.NOT_FOUND),
            ("x", "", grpc.StatusCode.INVALID_ARGUMENT),
            ("", MODEL, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await scores(service, classes, prompt, model=model)
            assert error.value.code() is code
