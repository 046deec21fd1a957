"""`LocalChatModel`: what is drawn, what it reports, and how concurrent calls share the work."""

import asyncio
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TEMPLATE
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda

from leafe_graph.errors import ConfigError, MissingDependency, ModelError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from leafe_graph.agent.model_calls import Call  # noqa: E402
from leafe_graph.agent.model_calls import _prompt_bound as prompt_bound  # noqa: E402
from leafe_graph.models.local import engine as engine_module  # noqa: E402
from leafe_graph.models.local import kv  # noqa: E402
from leafe_graph.models.local.batch import Batch, Stats  # noqa: E402
from leafe_graph.models.local.chat_model import LocalChatModel  # noqa: E402
from leafe_graph.models.local.memo import Memo, Row  # noqa: E402
from leafe_graph.models.local.prompts import chat_of  # noqa: E402
from leafe_graph.models.local.sampling import Answer, Request, Sampling  # noqa: E402
from leafe_graph.models.tool_calls import hermes, llama, read_tool_calls  # noqa: E402

PROMPT = [SystemMessage("a b c"), HumanMessage("up # _ P X")]
LONG = "a b c d e f g h i j k l m n o p q r s t u v w x y z"


def prompts(n: int) -> list[list[HumanMessage]]:
    """Distinct prompts of different lengths."""
    return [[HumanMessage(f"{LONG[: 2 * (i % 7)]} {i // 10} {i % 10}")] for i in range(n)]


@pytest.fixture
def model(tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalChatModel]:
    """A fresh engine for each test, so that counts start at 0; the memo is off."""
    monkeypatch.setattr(engine_module, "_engines", {})
    with LocalChatModel(path=str(tiny_model_path), max_tokens=8, logprobs=True, memo_bytes=0) as model:
        yield model


def patient(model: LocalChatModel) -> LocalChatModel:
    """The model with a window that gathers all concurrent calls into one batch, however busy the machine is."""
    return model.model_copy(update={"batch_window": 0.3})


def facts(message: Any) -> tuple[list[int], str]:
    """What a draw decides."""
    return message.response_metadata["token_ids"], message.response_metadata["finish_reason"]


def reference(path: Path) -> tuple[Any, Any]:
    """The same model without any of this package."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(path)


def test_greedy_is_what_transformers_generates(model: LocalChatModel, tiny_model_path: Path) -> None:
    """Temperature 0 gives the same tokens as `generate`, alone and in a padded batch."""
    plain, tokenizer = reference(tiny_model_path)
    batched = model.batch(prompts(12), temperature=0)
    for messages, answer in zip(prompts(12), batched, strict=True):
        chat = [{"role": "user", "content": messages[0].content}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = plain.generate(**ids, do_sample=False, max_new_tokens=8, pad_token_id=0)
        expected = out[0, ids["input_ids"].shape[1] :].tolist()
        assert answer.response_metadata["token_ids"] == expected
        assert facts(model.invoke(messages, temperature=0))[0] == expected


def test_same_seed_same_answer_whoever_shares_the_batch(model: LocalChatModel) -> None:
    """An answer drawn in company equals the one drawn alone, settings mixed."""
    settings = [{"seed": i, "temperature": 0.5 + i % 3, "top_p": 1 - 0.2 * (i % 2)} for i in range(30)]

    async def together() -> list[Any]:
        return await asyncio.gather(
            *(model.ainvoke(p, **s) for p, s in zip(prompts(30), settings, strict=True))  # type: ignore[arg-type]
        )

    for messages, setting, answer in zip(prompts(30), settings, asyncio.run(together()), strict=True):
        alone = model.invoke(messages, **setting)  # type: ignore[arg-type]
        assert facts(alone) == facts(answer)
        assert alone.response_metadata["logprobs"] == pytest.approx(answer.response_metadata["logprobs"], abs=1e-4)


def test_answers_that_are_computed_by_themselves_are_the_same_to_the_last_bit(tiny_model_path: Path) -> None:
    """In company, in another order, and after others, as the log-probabilities tell."""
    asked = [(prompt, i) for i, prompt in enumerate(prompts(30))]

    def answers(order: list[Any], at_once: int, **settings: Any) -> dict[int, Any]:
        with LocalChatModel(path=str(tiny_model_path), logprobs=True, **settings) as model:

            async def some(part: list[Any]) -> list[Any]:
                return await asyncio.gather(*(model.ainvoke(prompt, seed=seed) for prompt, seed in part))

            told = [asyncio.run(some(order[at : at + at_once])) for at in range(0, len(order), at_once)]
            said = [each.response_metadata for part in told for each in part]
            return {seed: (each["token_ids"], each["logprobs"]) for (_, seed), each in zip(order, said, strict=True)}

    alone = answers(asked, 1, batch_invariant=True, memo_bytes=0)
    assert answers(asked[::-1], 30, batch_invariant=True) == alone
    assert answers(asked[10:] + asked[:10], 7, batch_invariant=True) == alone


def test_what_was_computed_by_itself_is_remembered_to_the_last_bit(tiny_model_path: Path) -> None:
    """An answer is drawn from the memo as a whole, or computed as a whole, whatever was asked before."""
    settings: Any = {"path": str(tiny_model_path), "logprobs": True, "batch_invariant": True}
    asked = [(prompt, seed, length) for length in (1, 2, 12) for seed in range(20) for prompt in prompts(2)]

    def answers(model: LocalChatModel) -> list[Any]:
        said = [model.invoke(prompt, seed=seed, max_tokens=length) for prompt, seed, length in asked]
        return [(each.response_metadata["token_ids"], each.response_metadata["logprobs"]) for each in said]

    with LocalChatModel(**settings, memo_bytes=0) as bare, LocalChatModel(**settings) as memo:
        alone = answers(bare)
        assert answers(memo) == alone
        fewer = memo.stats["forwards"]
        assert fewer < bare.stats["forwards"] and bare.stats["memo_hits"] == 0 < memo.stats["memo_hits"]
        assert answers(memo) == alone
        assert memo.stats["forwards"] < 2 * fewer


def test_a_request_that_begins_anew_draws_the_same() -> None:
    """Also without a seed: else answers that are remembered as a whole would be drawn too often."""
    row, drawn = Row(torch.zeros(1000)), []
    for seed in (None, None, 3, 3):
        request = Request((1, 2), Sampling(seed=seed))
        for _ in range(2):
            for _ in range(8):
                request.draw(row)
            drawn.append(request.tokens)
            request.restart()
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3] != drawn[4] == drawn[5] == drawn[6] == drawn[7]


def test_seed_none_draws_afresh(model: LocalChatModel) -> None:
    """Without a seed the same prompt gives different answers; with one, always the same."""
    assert len({tuple(facts(m)[0]) for m in model.batch([PROMPT] * 10)}) > 1
    assert len({tuple(facts(m)[0]) for m in model.batch([PROMPT] * 10, seed=5)}) == 1


def test_logprobs_are_the_models_own(model: LocalChatModel, tiny_model_path: Path) -> None:
    """They equal a direct forward's log-softmax, whatever temperature and top_p drew the tokens."""
    answer = model.invoke(PROMPT, seed=1, temperature=2.0, top_p=0.9)
    meta = answer.response_metadata
    plain, _ = reference(tiny_model_path)
    ids = torch.tensor([meta["prompt_token_ids"] + meta["token_ids"]])
    with torch.no_grad():
        logprobs = plain(ids).logits[0].log_softmax(-1)
    start = len(meta["prompt_token_ids"]) - 1
    expected = [float(logprobs[start + i, token]) for i, token in enumerate(meta["token_ids"])]
    assert meta["logprobs"] == pytest.approx(expected, abs=1e-4)
    assert "logprobs" not in model.invoke(PROMPT, logprobs=False).response_metadata


def test_usage_counts_prompt_and_sampled_tokens(model: LocalChatModel) -> None:
    """usage_metadata is exact and agrees with count_prompt_tokens."""
    answer = model.invoke(PROMPT, seed=1)
    meta = answer.response_metadata
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == len(meta["prompt_token_ids"]) == model.count_prompt_tokens(PROMPT)
    assert answer.usage_metadata["output_tokens"] == len(meta["token_ids"])
    assert model.get_num_tokens("up down") == 2
    assert meta["model_name"] == "tiny"


def test_max_tokens_ends_with_length(model: LocalChatModel) -> None:
    """An answer is cut at max_tokens and says so; a stop token ends it before and is not in the text."""
    seen = Counter()
    for answer in model.batch(prompts(60), seed=3, max_tokens=20):
        tokens, reason = facts(answer)
        seen[reason] += 1
        assert (len(tokens) == 20) if reason == "length" else (tokens[-1] == 2 and len(tokens) <= 20)
        assert "</s>" not in answer.content
    assert set(seen) == {"stop", "length"}


def test_stop_texts_cut_the_answer(model: LocalChatModel) -> None:
    """The answer ends before the first stop text; the tokens stay as sampled."""
    whole = model.invoke(PROMPT, temperature=0).text.split()
    answer = model.invoke(PROMPT, temperature=0, stop=["nowhere", whole[2]])
    assert answer.text.split() == whole[:2]
    tokens, reason = facts(answer)
    assert (len(tokens), reason) == (3, "stop")


def draws(logits: list[float], n: int = 4000, **settings: Any) -> Counter[int]:
    """How often each token is drawn from a row of logits."""
    row = Row(torch.tensor(logits))
    request = Request((1,), Sampling(seed=0, **settings))
    for _ in range(n):
        request.draw(row)
    return Counter(request.tokens)


def test_draws_follow_the_distribution() -> None:
    """Frequencies are the softmax at the asked temperature."""
    logits = [0.0, 1.0, 2.0, -1.0]
    for temperature in (0.5, 1.0, 2.0):
        expected = torch.softmax(torch.tensor(logits) / temperature, -1).tolist()
        seen = draws(logits, temperature=temperature)
        assert [seen[i] / 4000 for i in range(4)] == pytest.approx(expected, abs=0.03)


def test_top_p_keeps_the_smallest_sufficient_set() -> None:
    """The token that crosses top_p is in, the next is not, the best always is; tiny temperatures do not overflow."""
    logits = [math.log(p) for p in (0.15, 0.5, 0.05, 0.3)]
    assert set(draws(logits, top_p=0.49)) == {1}
    assert set(draws(logits, top_p=0.6)) == {1, 3}
    assert set(draws(logits, top_p=0.81)) == {0, 1, 3}
    assert set(draws(logits, top_p=1e-9)) == {1}
    assert set(draws(logits, temperature=1e-30)) == {1}
    assert draws([-math.inf, 0.0, -math.inf])[1] == 4000


def test_concurrent_calls_share_forwards(model: LocalChatModel) -> None:
    """50 concurrent calls of 8 tokens take a few forwards, not 400."""
    model = patient(model)

    async def together() -> None:
        await asyncio.gather(*(model.ainvoke(p) for p in prompts(50)))

    asyncio.run(together())
    stats = model.stats
    assert stats["requests"] == 50
    assert stats["forwards"] < 30


def test_equal_prompts_are_computed_once(model: LocalChatModel) -> None:
    """Equal prompts in a batch are prefilled together, and still part where their samples do."""
    gathering = patient(model)

    async def together() -> list[Any]:
        return await asyncio.gather(*(gathering.ainvoke(PROMPT, seed=i) for i in range(40)))

    answers = asyncio.run(together())
    assert gathering.stats["prefill_tokens"] == model.count_prompt_tokens(PROMPT)
    assert len({tuple(facts(a)[0]) for a in answers}) > 10
    assert all(facts(model.invoke(PROMPT, seed=i)) == facts(a) for i, a in enumerate(answers[:10]))


def test_shared_prefix_is_computed_once_and_changes_nothing(
    model: LocalChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts that begin alike save prefill tokens, in one batch and one after the other."""
    asked: list[Any] = [[SystemMessage(LONG), HumanMessage(f"{i} {LONG[: 2 * i]}")] for i in range(9)]
    with monkeypatch.context() as without:
        without.setattr(kv, "MIN_PREFIX", 10**9)
        expected = [facts(model.invoke(prompt, seed=7)) for prompt in asked]
    total = model.stats["prefill_tokens"]
    assert total == sum(model.count_prompt_tokens(prompt) for prompt in asked)
    assert [facts(model.invoke(prompt, seed=7)) for prompt in asked] == expected
    one_by_one = model.stats["prefill_tokens"] - total
    assert [facts(message) for message in model.batch(asked, seed=7)] == expected
    assert one_by_one < 0.6 * total
    assert model.stats["prefill_tokens"] - total - one_by_one < 0.5 * total


def test_memo_saves_forwards_and_keeps_the_distribution(tiny_model_path: Path) -> None:
    """A known state costs no forward; its answers are the same as without the memo, and as varied."""
    bare = LocalChatModel(path=str(tiny_model_path), max_tokens=2, logprobs=True, memo_bytes=0)
    memo = LocalChatModel(path=str(tiny_model_path), max_tokens=2, logprobs=True, memo_bytes=10**7)
    expected = [facts(bare.invoke(PROMPT, seed=i)) for i in range(200)]
    assert [facts(memo.invoke(PROMPT, seed=i)) for i in range(200)] == expected
    forwards = memo.stats["forwards"]
    assert forwards < 120 < bare.stats["forwards"]
    assert [facts(memo.invoke(PROMPT, seed=i)) for i in range(200)] == expected
    assert memo.stats["forwards"] == forwards
    assert memo.stats["memo_hits"] >= 400
    assert len({tokens[0] for tokens, _ in expected}) > 5


def test_a_listener_hears_of_a_call_and_changes_nothing(model: LocalChatModel) -> None:
    """Where a handler, a cache or a limiter is set, LangChain's own way is taken; the answers are the same."""
    heard: list[Any] = []

    class Handler(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            heard.append(messages)

    alone = [model.invoke(PROMPT, seed=3), asyncio.run(model.ainvoke(PROMPT, seed=3))]
    assert not heard
    config: Any = {"callbacks": [Handler()]}
    watched = [model.invoke(PROMPT, config, seed=3), asyncio.run(model.ainvoke(PROMPT, config, seed=3))]
    assert len(heard) == 2
    first, *others = [message.model_dump(exclude={"id"}) for message in alone + watched]
    assert others == [first] * 3
    ids = [message.id for message in alone + watched]
    assert len(set(ids)) == 4 and all(i.startswith("lc_run--") and i.endswith("-0") for i in ids)
    within = RunnableLambda(lambda prompt: model.invoke(prompt, seed=3))
    assert within.invoke(PROMPT, config).text == alone[0].text
    assert len(heard) == 3
    cached = model.model_copy(update={"cache": InMemoryCache()})
    assert cached.invoke(PROMPT).text == cached.invoke(PROMPT).text == cached.invoke(PROMPT).text


def test_messages_as_records_and_as_objects_are_one_prompt(model: LocalChatModel) -> None:
    """Whichever way a chat is given; and it is rendered and tokenised once."""
    record = [{"role": "system", "content": "a b c"}, {"role": "user", "content": "up # _ P X"}]
    first = model.invoke(PROMPT, seed=1)
    encoded: list[Any] = []
    chats = model._chats()
    encode = chats._chat.encode
    chats._chat.encode = lambda prompts: encoded.append(prompts) or encode(prompts)  # type: ignore[method-assign,func-returns-value]
    assert facts(model.invoke(record, seed=1)) == facts(first)
    assert model.count_prompt_tokens(PROMPT) == first.usage_metadata["input_tokens"]
    assert encoded == []
    model.invoke("a b c", seed=1)
    assert len(encoded) == 1


def test_what_the_memo_knows_is_drawn_without_the_worker(tiny_model_path: Path) -> None:
    """No thread and no loop: the same answers, from many threads at once too."""
    with LocalChatModel(path=str(tiny_model_path), max_tokens=2, logprobs=True, batch_window=0.01) as memo:
        expected = [facts(memo.invoke(PROMPT, seed=i)) for i in range(100)]
        memo.close()
    with LocalChatModel(path=str(tiny_model_path), max_tokens=2, logprobs=True) as memo:
        assert [facts(answer) for answer in memo.batch([PROMPT] * 1, seed=0)] == expected[:1]
        for i in range(100):
            memo.invoke(PROMPT, seed=i)
        engine = memo._shared()
        engine._arrived = None  # type: ignore[assignment]  # nothing can be queued any more
        try:
            with ThreadPoolExecutor(8) as pool:
                answers = [*pool.map(lambda i: memo.invoke(PROMPT, seed=i), [*range(100)] * 5)]
        finally:
            engine._arrived = []
        assert [facts(answer) for answer in answers] == expected * 5


def test_an_idle_worker_starts_when_as_many_call_as_before(model: LocalChatModel) -> None:
    """A window that would last a minute is not waited for."""
    model = model.model_copy(update={"batch_window": 60.0, "max_batch_size": 8})

    async def in_step() -> None:
        for _ in range(3):
            await asyncio.gather(*(model.ainvoke(prompt) for prompt in prompts(8)))

    asyncio.run(asyncio.wait_for(in_step(), 30))
    assert model.stats["requests"] == 24


def test_answers_longer_than_the_memo_are_the_same(tiny_model_path: Path) -> None:
    """An answer that walks through the memo and then leaves it goes on exactly as without it."""
    bare = LocalChatModel(path=str(tiny_model_path), max_tokens=30, logprobs=True, memo_bytes=0)
    memo = bare.model_copy(update={"memo_bytes": 10**7})
    expected = [facts(bare.invoke(PROMPT, temperature=0)), facts(bare.invoke(PROMPT, seed=1))]
    for _ in range(3):
        assert [facts(memo.invoke(PROMPT, temperature=0)), facts(memo.invoke(PROMPT, seed=1))] == expected


def test_memo_is_bounded() -> None:
    """The least recently used rows go when the limit is reached."""
    row = torch.zeros(100)
    memo = Memo(3 * 2450)
    for i in range(3):
        memo.keep((i,), row)
    assert memo.get((0,)) is not None
    memo.keep((3,), row)
    assert memo.get((1,)) is None and memo.get((0,)) is not None
    assert memo.size <= memo.limit
    none = Memo(0)
    assert none.keep((1,), row).draw(0.5, 1.0, 1.0) == 50
    assert none.get((1,)) is None


def test_chunks_waste_little_padding() -> None:
    """Sequences that have about as much to compute go together."""
    sequences = [(i, *range(n)) for i, n in enumerate([40, 41, 100, 42, 300, 101, 40])]
    found = Batch(None, Stats()).plan(sequences)
    assert [[len(ids) - 1 for ids in chunk] for chunk in found] == [[40, 40, 41, 42], [100, 101], [300]]


def test_kept_prefixes_are_bounded() -> None:
    """Prompts that were not used for longest go first; the longest known beginning is found; never a whole prompt."""

    def block(rows: int, width: int) -> kv.Block:
        return kv.Block([(torch.zeros(rows, 1, width, 1),) * 2], torch.ones(rows, width, dtype=torch.long))

    a, b, c = ((i, *range(100, 139)) for i in range(3))
    kept = kv.Prefixes(2 * block(1, 40).bytes(40))
    kept.put([a, b], block(2, 40))
    assert kept.match(a) == (39, a)
    assert kept.match((*b[:30], 5, 6)) == (30, b)
    assert kept.match((*b[:10], 5, 6)) == (0, ())
    gathered = kept.gather([kept.match(a), (0, ())])
    assert gathered is not None and gathered.mask.sum(1).tolist() == [39, 0]
    kept.put([c], block(1, 40))
    assert (kept.match(a)[0], kept.match(b)[0], kept.match(c)[0]) == (39, 0, 39)


def test_a_failing_batch_fails_its_calls_only(model: LocalChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a forward becomes a ModelError of these calls, and the worker goes on."""
    expected = facts(model.invoke(PROMPT, seed=1))
    with monkeypatch.context() as broken:
        broken.setattr(Batch, "_call", lambda *args: 1 / 0)
        for error in model.batch(prompts(4), return_exceptions=True):
            assert isinstance(error, ModelError) and "ZeroDivisionError" in str(error)
    with monkeypatch.context() as broken:
        broken.setattr(Batch, "decode", lambda self: 1 / 0)
        with pytest.raises(ModelError):
            asyncio.run(model.ainvoke(PROMPT))
    assert facts(model.invoke(PROMPT, seed=1)) == expected


def test_cancelled_calls_leave_the_batch(model: LocalChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled call stops decoding, and others do not notice."""
    expected = facts(model.invoke(PROMPT, seed=1))
    decode = Batch.decode

    def slow(self: Batch) -> Any:
        time.sleep(0.01)
        return decode(self)

    monkeypatch.setattr(Batch, "decode", slow)

    async def main() -> tuple[list[int], str]:
        endless = asyncio.create_task(model.ainvoke(PROMPT, max_tokens=200, temperature=5.0, seed=2))
        await asyncio.sleep(0.02)
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless
        return facts(await model.ainvoke(PROMPT, seed=1))

    assert asyncio.run(main()) == expected
    assert model.stats["decode_tokens"] < 150


def test_more_calls_than_the_batch_holds(tiny_model_path: Path) -> None:
    """Calls over max_batch_size wait for room and all are answered."""
    model = LocalChatModel(path=str(tiny_model_path), max_tokens=3, max_batch_size=4)
    assert len(model.batch(prompts(30), seed=1)) == 30


def test_close_and_use_again(model: LocalChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Close may be called twice, a later call works, and an idle worker ends by itself and comes back."""
    expected = facts(model.invoke(PROMPT, seed=1))
    model.close()
    model.close()
    assert facts(model.invoke(PROMPT, seed=1)) == expected
    model.close()
    monkeypatch.setattr(engine_module, "IDLE_SECONDS", 0.01)
    assert facts(model.invoke(PROMPT, seed=1)) == expected
    worker = model._shared()._thread
    if worker is not None:
        worker.join(5)
    assert model._shared()._thread is None
    assert facts(model.invoke(PROMPT, seed=1)) == expected


def test_copies_and_bindings_share_the_engine(model: LocalChatModel) -> None:
    """A copy with other sampling settings, and an equal model, use the same weights and worker."""
    engine = model._shared()
    assert model.model_copy(update={"temperature": 0.0})._shared() is engine
    assert LocalChatModel(**model.model_dump())._shared() is engine
    assert model.model_copy(update={"max_batch_size": 2})._shared() is not engine
    model.bind(seed=1).invoke(PROMPT)
    assert engine.stats["requests"] == 1


@pytest.fixture
def adapter_path(tiny_model_path: Path, tmp_path: Path) -> Path:
    """A LoRA adapter with random weights."""
    peft = pytest.importorskip("peft")
    plain, _ = reference(tiny_model_path)
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(plain, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_adapter_is_merged_and_equals_peft(model: LocalChatModel, tiny_model_path: Path, adapter_path: Path) -> None:
    """Log-probabilities with the merged adapter are those of PEFT without merging, and not the base's."""
    from peft import PeftModel

    answer = model.model_copy(update={"adapter": [str(adapter_path)]}).invoke(PROMPT, seed=1)
    meta = answer.response_metadata
    plain, _ = reference(tiny_model_path)
    with torch.no_grad():
        ids = torch.tensor([meta["prompt_token_ids"] + meta["token_ids"]])
        base = plain(ids).logits[0].log_softmax(-1)
        adapted = PeftModel.from_pretrained(plain, adapter_path).eval()(ids).logits[0].log_softmax(-1)
    start = len(meta["prompt_token_ids"]) - 1
    rows = range(start, start + len(meta["token_ids"]))
    expected = [float(adapted[row, token]) for row, token in zip(rows, meta["token_ids"], strict=True)]
    assert meta["logprobs"] == pytest.approx(expected, abs=1e-3)
    assert not torch.allclose(base[start], adapted[start], atol=1e-2)


def test_an_adapter_written_anew_is_loaded_anew(tiny_model_path: Path, adapter_path: Path) -> None:
    """The next round's adapter in the same folder does not meet the former round's weights."""
    first = LocalChatModel(path=str(tiny_model_path), adapter=str(adapter_path))
    same = LocalChatModel(path=str(tiny_model_path), adapter=str(adapter_path))
    assert first._shared() is same._shared()
    os.utime(adapter_path / "adapter_model.safetensors", (1, 1))
    assert LocalChatModel(path=str(tiny_model_path), adapter=str(adapter_path))._shared() is not first._shared()


def test_messages_become_roles(model: LocalChatModel) -> None:
    """System, human, AI, tool and chat messages reach the template under its names."""
    messages = [SystemMessage("a"), HumanMessage("b"), AIMessage("c"), ToolMessage("d", tool_call_id="1")]
    ids = model.invoke([*messages, ChatMessage("e", role="user")]).response_metadata["prompt_token_ids"]
    _, tokenizer = model._shared().loaded()
    assert tokenizer.decode(ids) == (
        "<s> system a </s> <s> user b </s> <s> assistant c </s> <s> tool d </s> <s> user e </s> <s> assistant"
    )


def test_prompt_longer_than_the_context(model: LocalChatModel) -> None:
    """It is a ModelError that says both lengths; an answer that would go over the context ends there."""
    with pytest.raises(ModelError, match=r"tokens; the context of .* holds 256"):
        model.invoke(" ".join(["a"] * 300))
    answer = model.invoke(" ".join(["a"] * 245), temperature=1.0, max_tokens=100, seed=1)
    assert answer.usage_metadata is not None and answer.usage_metadata["total_tokens"] <= 256


@pytest.mark.parametrize(
    "settings", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_tokens": 0}, {"top_k": 5}]
)
def test_wrong_settings_are_named(model: LocalChatModel, settings: dict[str, Any]) -> None:
    """Settings out of range or unknown raise a ConfigError that names them."""
    with pytest.raises(ConfigError, match=next(iter(settings))):
        model.invoke(PROMPT, **settings)


def test_wrong_folders_are_named(tiny_model_path: Path, tmp_path: Path) -> None:
    """A folder that is no model, or no adapter, is refused when the model is made."""
    with pytest.raises(ConfigError, match=r"config\.json"):
        LocalChatModel(path=str(tmp_path))
    with pytest.raises(ConfigError, match="does not exist"):
        LocalChatModel(path=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"adapter_config\.json"):
        LocalChatModel(path=str(tiny_model_path), adapter=str(tmp_path))


def test_no_chat_template(tiny_model_path: Path, tmp_path: Path) -> None:
    """A tokenizer without a chat template is a ConfigError that says what to do."""
    plain, tokenizer = reference(tiny_model_path)
    tokenizer.chat_template = None
    plain.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="chat template"):
        LocalChatModel(path=str(tmp_path)).invoke("a")


def test_missing_packages_name_the_extra(tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transformers the error says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependency, match=r"not installed: pip install .*\[hf\]"):
        LocalChatModel(path=str(tiny_model_path), batch_window=0.123).invoke("a")


def test_budget_of_tokens_holds_with_a_local_model(tiny_model_path: Path, tmp_path: Path) -> None:
    """The exact length of a prompt and the most that an answer may take are reserved before each call."""
    from leafe_graph import Budget, Limits, explore
    from leafe_graph.testing import GridWorld, grid_tasks

    model = LocalChatModel(path=str(tiny_model_path), max_tokens=2)
    run = explore(
        model,
        GridWorld,
        grid_tasks(3),
        out=tmp_path,
        strategy="independent",
        limits=Limits(max_branches=2),
        budget=Budget(prompt_tokens=150, completion_tokens=40),
        history=0,
        max_turns=30,
    )
    assert {branch["end"] for branch in run.branches} <= {"budget", "failure", "success", "max_turns"}
    for tree in run.trees.values():
        assert 0 < sum(branch["cost"]["prompt_tokens"] for branch in tree.values()) <= 150


def test_asynchronous_calls_do_not_hold_up_the_event_loop(model: LocalChatModel) -> None:
    """Neither the first one, which loads, nor the next: LangGraph's server raises where one does."""
    blockbuster = pytest.importorskip("blockbuster", reason='pip install "langgraph-cli[inmem]"')

    async def ask() -> list[Any]:
        with blockbuster.blockbuster_ctx():
            return [await model.ainvoke("a"), await model.ainvoke("b")]

    assert [answer.response_metadata["model_name"] for answer in asyncio.run(ask())] == [Path(model.path).name] * 2


# ---- tools

TOOLS = {"type": "function", "function": {"name": "b", "description": "c", "parameters": {}}}
HERMES = """
{%- for tool in tools or [] %}{{ '<s> system ' + tool.function.name + ' </s> ' }}{% endfor %}
{%- for m in messages %}
    {{- '<s> ' + m.role + ' ' + m.content }}
    {%- for call in m.tool_calls or [] %}
        {{- ' <tool_call> {"name": "' + call.function.name + '", ' }}
        {{- '"arguments": ' + call.function.arguments | tojson + '} </tool_call>' }}
    {%- endfor %}
    {{- ' </s> ' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<s> assistant' }}{% endif %}"""


def with_template(folder: Path, path: Path, template: str) -> str:
    """A copy of the tiny model with another chat template."""
    shutil.copytree(path, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def test_tools_reach_the_template_and_calls_come_back(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the prompt and its count; what the model writes between the marks is its calls, whoever invokes it."""
    path = with_template(tmp_path / "own", tiny_model_path, HERMES)
    said = '<tool_call>{"name": "b", "arguments": {"n": 1}}</tool_call> <tool_call>{"name": 3}</tool_call> up'
    with LocalChatModel(path=path, max_tokens=2) as model:
        bound = model.bind_tools([TOOLS])
        decode = model._shared().loaded()[1].decode
        assert decode(model._encode([HumanMessage("a")], [TOOLS])) == "<s> system b </s> <s> user a </s> <s> assistant"
        assert bound.invoke("a").usage_metadata["input_tokens"] == model.count_prompt_tokens(
            [HumanMessage("a")], [TOOLS]
        )
        call = Call(model=bound, messages=[{"role": "user", "content": "a"}], max_tokens=2, seed=None)
        assert prompt_bound(call) == bound.invoke("a").usage_metadata["input_tokens"]  # what a budget reserves
        assert bound.invoke("a").tool_calls == []
        submit = model._shared().submit

        def answered(*args: Any) -> Any:
            answer = submit(*args)
            return replace(answer if isinstance(answer, Answer) else answer.result(), text=said)

        monkeypatch.setattr(model._shared(), "submit", answered)
        for answer in (bound.invoke("a"), asyncio.run(bound.ainvoke("a"))):
            (call,), (invalid,) = answer.tool_calls, answer.invalid_tool_calls
            assert (answer.text, call["name"], call["args"]) == ("up", "b", {"n": 1})
            assert invalid["args"] == '{"name": 3}' and invalid["id"] != call["id"]
            assert answer.tool_calls == bound.invoke("a").tool_calls
        assert model.invoke("a").text == said  # no tools, no calls


def test_an_agent_of_langchains_calls_tools_with_a_local_model(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call reaches the tool, its answer the next prompt, under the tool's name."""
    agents = pytest.importorskip("langchain.agents", reason='pip install ".[langchain]"')
    path = with_template(tmp_path / "own", tiny_model_path, HERMES)
    asked: list[str] = []

    def b(n: int) -> str:
        """Count."""
        return f"c {n}"

    with LocalChatModel(path=path, max_tokens=2) as model:
        submit, decode = model._shared().submit, model._shared().loaded()[1].decode

        def answered(prompt: Any, *args: Any) -> Any:
            asked.append(decode(prompt))
            answer = submit(prompt, *args)
            said = "up" if " tool " in asked[-1] else '<tool_call>{"name": "b", "arguments": {"n": 1}}</tool_call>'
            return replace(answer if isinstance(answer, Answer) else answer.result(), text=said)

        monkeypatch.setattr(model._shared(), "submit", answered)
        agent = agents.create_agent(model, [b])
        for out in (agent.invoke({"messages": ["a"]}), asyncio.run(agent.ainvoke({"messages": ["a"]}))):
            assert [message.text for message in out["messages"]] == ["a", "", "c 1", "up"]
    assert asked[1] == asked[3] and asked[1].endswith("</s> <s> tool c 1 </s> <s> assistant")
    assert chat_of(out["messages"])[2] == {
        "role": "tool",
        "content": "c 1",
        "name": "b",
        "tool_call_id": out["messages"][1].tool_calls[0]["id"],
    }


def test_tools_of_a_model_that_cannot_call_them_are_refused(tiny_model_path: Path, tmp_path: Path) -> None:
    """A template without tools or with another form of calls; and a choice that nothing here enforces."""
    with LocalChatModel(path=str(tiny_model_path)) as model:
        with pytest.raises(ConfigError, match="takes no tools"):
            model.bind_tools([TOOLS]).invoke("a")
        with pytest.raises(ConfigError, match="tool_choice"):
            model.bind_tools([TOOLS], tool_choice="any")
    for number, template in enumerate((TEMPLATE + "{{ tools }}", HERMES.replace("tool_call>", "call>"))):
        path = with_template(tmp_path / f"other{number}", tiny_model_path, template)
        with LocalChatModel(path=path) as model, pytest.raises(ConfigError, match="no tool calls, or in another form"):
            model.bind_tools([TOOLS]).invoke("a")


@pytest.mark.parametrize(
    ("reader", "text", "left", "calls", "invalid"),
    [
        (hermes, "up", "up", [], 0),
        (hermes, '<tool_call>\n{"name": "a", "arguments": {}}\n</tool_call>', "", [("a", {})], 0),
        (hermes, 'hm <tool_call>{"name": "a", "arguments": "{\\"n\\": 1}"}</tool_call>', "hm", [("a", {"n": 1})], 0),
        (
            hermes,
            '<tool_call>{"name": "a", "arguments": {"n": 1}}',
            "",
            [("a", {"n": 1})],
            0,
        ),  # the stop token closed it
        (hermes, "<tool_call>{up</tool_call>", "", [], 1),
        (hermes, '<tool_call>["a"]</tool_call>', "", [], 1),
        (hermes, '<tool_call>{"name": "a", "arguments": [1]}</tool_call>', "", [], 1),
        (llama, "up", "up", [], 0),
        (llama, '{"up": 1}', '{"up": 1}', [], 0),  # an answer in JSON
        (llama, '\n{"name": "a", "parameters": {"n": {"m": ";"}}}', "", [("a", {"n": {"m": ";"}})], 0),
        (llama, '{"name": "a", "parameters": {}}; {"name": "b", "parameters": {}}', "", [("a", {}), ("b", {})], 0),
        (llama, '{"name": "a", "parameters": {}}; {"name": "b", "para', "", [("a", {})], 1),
        (llama, '{"name": "a"}', "", [], 1),
    ],
)
def test_tool_calls_are_read(reader: Any, text: str, left: str, calls: list[Any], invalid: int) -> None:
    """Text, calls in order, and what stands where a call should."""
    rest, found, wrong = read_tool_calls(text, (1, 2), reader)
    assert (rest, [(call["name"], call["args"]) for call in found], len(wrong)) == (left, calls, invalid)
    assert read_tool_calls(text, (1, 2), reader) == (rest, found, wrong)
