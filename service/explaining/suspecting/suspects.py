"""Tries the usual suspects against the index, and says which of them the pods hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from service.explaining.suspecting.variants import variants
from service.explaining.words import listed, short, some

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from indexer import Inspection, KeyScheme, Worker
    from service.explaining.asked import AskedPrompt, Turn
    from service.explaining.suspecting.variants import Seen, Variant
    from service.replication import Replica

_MOST_SUSPECTS = 16
_MOST_STORE_LOOKUPS = 24
_BEGINNING = 2048  # tokens that are matched first
_MEANS = {
    "without_adapter": "for the model itself and not for adapter {lora!r}. If the request runs "
    "without the adapter, leave lora_name empty; if it runs with it, the engine's events do not "
    "name the adapter",
    "other_adapter": "for adapter {other_lora!r}. If the request runs with it, set lora_name to it",
    "without_salt": "without a cache salt, and engines share blocks only among requests with equal "
    "salts. If the request is sent without a salt, leave cache_salt out",
    "other_salt": "under another cache salt, and engines share blocks only among requests with "
    "equal salts. Check that cache_salt is what the engine is sent",
    "other_model": "as model {model!r}. Check the model of the request, and the one in the pods' "
    "topics or in the configuration of the source",
    "without_items": "without its images and the like. Check multimodal_items, and whether the "
    "engine publishes extra keys",
    "byte_swapped_ids": "with the bytes of each token id in the opposite order. "
    "packed_token_ids are little-endian",
    "first_token_extra": "without its first token, {token}. Often a special token such as BOS is "
    "added twice: once by the template, once by the tokenizer",
    "first_token_missing": "with token {token} before it. Often a special token such as BOS is "
    "missing: tokenize with special tokens, or send the request itself as the prompt",
}


class Suspect(NamedTuple):
    """Another form of the prompt, of which pods hold more."""

    kind: str
    """See `Suspect` in explain.proto."""
    summary: str
    model: str
    lora_name: str
    token_id: int | None
    """The token that is extra or missing, if one is."""
    pods: list[str]
    """Those that hold more of it, the ones with most of it first."""
    blocks: int
    """The most leading blocks that one of them holds."""
    tokens: int
    """The tokens that it holds."""


class Suspects:
    """Tries the usual suspects.

    Args:
        inspection: of the index.
        replica: matches prompts.
        scheme_of: model -> its block keys.
    """

    def __init__(
        self, inspection: Inspection, replica: Replica, scheme_of: Callable[[str], KeyScheme]
    ) -> None:
        self._inspection = inspection
        self._replica = replica
        self._scheme_of = scheme_of

    async def find(
        self, asked: AskedPrompt, seen: Seen, matched: Mapping[Worker, int], turn: Turn
    ) -> list[Suspect]:
        """Return the suspects that hold, those that match most first.

        matched: the matched blocks of the prompt as it is, of each worker of the model.
        """
        found: list[Suspect] = []
        lookups = 0
        sizes: dict[str, frozenset[int]] = {}
        beginning = asked.beginning(_BEGINNING)
        for variant in variants(asked, seen, self._scheme_of):
            await turn.pause()
            form = variant.form_of(beginning)
            if form.model not in sizes:
                sizes[form.model] = self._inspection.key_sizes(form.model)
            if not self._may_match(form, sizes[form.model]):
                continue
            if self._replica.may_wait and (lookups := lookups + 1) > _MOST_STORE_LOOKUPS:
                break
            suspect = await self._try(variant, form, asked, matched, turn)
            if suspect is not None:
                found.append(suspect)
        found.sort(key=lambda suspect: -suspect.blocks)
        return found[:_MOST_SUSPECTS]

    def _may_match(self, prompt: AskedPrompt, sizes: Collection[int]) -> bool:
        """Whether somebody holds the first block, as far as that is known here without asking."""
        if not self._replica.has_all_blocks:
            return True
        for size in sizes:
            keys = prompt.beginning(size or prompt.block_size).keys()
            first = keys.block_keys(size or prompt.block_size)
            if first and self._inspection.is_held(prompt.model, first[0]):
                return True
        return False

    async def _try(
        self,
        variant: Variant,
        form: AskedPrompt,
        asked: AskedPrompt,
        matched: Mapping[Worker, int],
        turn: Turn,
    ) -> Suspect | None:
        """Match a variant; form: that of the beginning of the prompt."""
        blocks = await self._match(form, turn)
        if len(asked.tokens) > _BEGINNING and 2 * max(blocks.values(), default=0) > (
            form.total_blocks
        ):
            form = variant.form_of(asked)
            blocks = await self._match(form, turn)
        most = max(matched.values(), default=0)
        more = {
            worker: count
            for worker, count in blocks.items()
            if count > (matched.get(worker, 0) if form.model == asked.model else most)
        }
        if not more:
            return None
        pods = [*dict.fromkeys(worker.pod for worker in sorted(more, key=lambda w: -more[w]))]
        count = max(more.values())
        return Suspect(
            variant.kind,
            _summary(variant, form, asked, pods, count),
            *(form.model, form.lora_name, variant.token_id, pods),
            *(count, count * form.block_size),
        )

    async def _match(self, prompt: AskedPrompt, turn: Turn) -> dict[Worker, int]:
        """Return how many leading blocks each worker holds, of those that hold any."""
        keys = await prompt.make_keys(turn)
        pods, match, *_ = await self._replica.match(prompt.model, keys)
        found = (each for pod in pods for each in match.ranks_of(pod) or ())
        return {each.worker: each.matched_blocks for each in found if each.matched_blocks}


def _summary(
    variant: Variant, form: AskedPrompt, asked: AskedPrompt, pods: list[str], blocks: int
) -> str:
    means = _MEANS[variant.kind].format(
        lora=short(asked.lora_name),
        other_lora=short(form.lora_name),
        model=short(form.model),
        token=variant.token_id,
    )
    return (
        f"{listed(pods)} {'holds' if len(pods) == 1 else 'hold'} up to {some(blocks, 'block')} "
        f"({blocks * form.block_size} tokens) of this prompt {means}."
    )
