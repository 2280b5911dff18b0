"""Texts that end a response: where it ends, what is judged, and both engines' responses, law by law and by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.engines.vllm_engine import VLLMEngine
from aepo.llm.grading.overlong import ended
from aepo.llm.policy.model import from_scratch
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.questions.stop_texts import StopTexts
from aepo.llm.questions.task import math_task, stops
from aepo.llm.settings import DataSettings, RewardSettings, SettingsError, load


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Tokens of several characters, with line ends and blanks inside of them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = "a word\n\nstop here\nand é so. End.\n" * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=["<eos>", "<pad>"], max_token_length=4
    )
    tokenizer.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


TOKENIZERS = {"bytes": byte_tokenizer(), "merging": merging_tokenizer()}
TEXTS = st.sampled_from(["\n", "\n\n", "stop", "é", ". ", "End.\n", "word\n", "so", "a w", "😀"])


def by_definition(tokenizer, texts, tokens) -> int:
    """The first n whose text, read whole, has a stop text; all tokens where there is none."""
    for n in range(1, len(tokens) + 1):
        said = tokenizer.decode(tokens[:n], skip_special_tokens=True)
        if any(text in said for text in texts):
            return n
    return len(tokens)


@given(st.sampled_from(sorted(TOKENIZERS)), st.lists(TEXTS, min_size=1, max_size=3), st.data())
def test_a_response_ends_with_the_token_that_completes_the_first_of_the_texts(name, texts, data):
    tokenizer = TOKENIZERS[name]
    parts = st.one_of(
        st.sampled_from(["a word\n", "stop", "sto", "é", "End", ".\n", " ", "so. ", "😀", "\n\n"]).map(
            lambda text: tokenizer.encode(text, add_special_tokens=False)
        ),
        st.integers(0, len(tokenizer) - 1).map(lambda token: [token]),
    )
    tokens = [token for part in data.draw(st.lists(parts, min_size=1, max_size=12)) for token in part]
    stop = StopTexts(tokenizer=tokenizer, texts=tuple(texts))
    length = stop.length(tokens)
    assert length == by_definition(tokenizer, texts, tokens)
    said = tokenizer.decode(tokens[:length], skip_special_tokens=True)
    # What is judged holds no stop text, and is what stands before the one that ended it.
    assert said.startswith(stop.before(said)) and not any(text in stop.before(said) for text in texts)
    assert (stop.before(said) == said) == (not any(text in said for text in texts))
    assert stop.completed(tokens[:length]) == any(text in said for text in texts)


def test_by_hand_inside_a_token_over_tokens_at_the_first_and_never():
    tokenizer = TOKENIZERS["merging"]
    spelled = {tokenizer.decode([token]): token for token in range(2, len(tokenizer))}
    inside = next(text for text in spelled if "\n" in text.strip(" ") and not text.startswith("\n") and len(text) > 2)
    line = StopTexts(tokenizer=tokenizer, texts=("\n",))
    a, end = spelled["a"], tokenizer.eos_token_id
    # The token that completes it says more: it is charged whole, and the text before the line's end is judged.
    assert line.length([a, spelled[inside], a]) == 2
    assert line.before(f"a{inside}") == f"a{inside.partition(chr(10))[0]}"
    assert line.length([spelled[inside], a]) == 1
    assert line.length([a, a, end]) == 3 and not line.completed([a, a, end]) and line.before("aa") == "aa"
    # A text over three tokens of bytes; a special token between them says nothing.
    data, letters = TOKENIZERS["bytes"], TOKENIZERS["bytes"].encode("stop it", add_special_tokens=False)
    word = StopTexts(tokenizer=data, texts=("op ",))
    assert word.length(letters) == 5 and word.before("stop it") == "st"
    assert word.length([*letters[:3], data.pad_token_id, *letters[3:]]) == 6
    # A character of two bytes is there with its second.
    accent = data.encode("é", add_special_tokens=False)
    assert StopTexts(tokenizer=data, texts=("é",)).length([*accent, *letters]) == len(accent) == 2


# Both engines


def a_model():
    return from_scratch(load(None, ["data.train=q.jsonl"]), SimpleNamespace(tokenizer=TOKENIZERS["bytes"])).eval()


class Going:
    """What vLLM answers: it goes on behind a stop text until it looks, some tokens later; or it ends a response early,
    for a text of the prompt."""

    def __init__(self, engine: EmbeddedEngine, late: int | None) -> None:
        self.engine, self.late, self.asked = engine, late, []

    def generate(self, requests, params, use_tqdm):
        found = []
        for request, chosen in zip(requests, params, strict=True):
            self.asked.append(chosen)
            said = self.engine.sample(
                [request["prompt_token_ids"]],
                n=1,
                temperature=chosen["temperature"],
                row_seeds=np.array([chosen["row"]], dtype=np.uint64),
            )
            count = int(said.mask.sum())
            ids = said.token[0, :count].tolist()
            reason = None
            if chosen["stop"] is not None:
                reason = chosen["stop"][0]
                by_text = StopTexts(tokenizer=TOKENIZERS["bytes"], texts=tuple(chosen["stop"])).length(ids)
                ids = ids[: 1 if self.late is None else by_text + self.late]
            logprobs = [{i: SimpleNamespace(logprob=float(said.logp[0, at]))} for at, i in enumerate(ids)]
            answer = SimpleNamespace(token_ids=ids, logprobs=logprobs, stop_reason=reason)
            found.append(SimpleNamespace(outputs=[answer]))
        return found


@pytest.mark.parametrize("late", [0, 3, None])
def test_both_engines_end_a_response_where_the_definition_does_with_the_log_probs_of_what_is_left(late):
    tokenizer, model = TOKENIZERS["bytes"], a_model()
    common = dict(model=model, end_ids=[tokenizer.eos_token_id], pad_id=tokenizer.pad_token_id, max_tokens=12)
    # Of 256 bytes and more a text of a few is met now and then: every byte of some end one.
    texts = (*map(chr, range(32, 80)), "ab")
    stop = StopTexts(tokenizer=tokenizer, texts=texts)
    prompts, n = [[5, 6, 7], [8, 9], [10]], 20
    rows = np.arange(1, len(prompts) * n + 1, dtype=np.uint64) * np.uint64(2)
    plain = EmbeddedEngine(**common).sample(prompts, n=n, temperature=1.0, row_seeds=rows)
    found = EmbeddedEngine(**common, stop=stop).sample(prompts, n=n, temperature=1.0, row_seeds=rows)
    other = object.__new__(VLLMEngine)
    other.end_ids, other.stop, other.pad_id = [tokenizer.eos_token_id], stop, tokenizer.pad_token_id
    other.max_tokens, other.max_length, other.tensor_parallel = 12, 100, 1
    # vLLM's own seeds are halved, and drawn from by its own generator.
    other._params = lambda *, seed, **chosen: {**chosen, "row": seed * 2}
    other.llm = Going(EmbeddedEngine(**common), late)
    by_vllm = other.sample(prompts, n=n, temperature=1.0, row_seeds=rows)
    met = {"text": 0, "token": 0, "limit": 0, "first": 0}
    for row in range(len(rows)):
        whole = plain.token[row, : int(plain.mask[row].sum())].tolist()
        want = by_definition(tokenizer, texts, whole)
        for said in (found, by_vllm):
            assert said.token[row, : int(said.mask[row].sum())].tolist() == whole[:want]
            torch.testing.assert_close(said.logp[row, :want], plain.logp[row, :want], atol=1e-5, rtol=0)
        completed = stop.completed(whole[:want])
        assert bool(ended(found.token, found.mask, end_ids=common["end_ids"], completed=stop.completed)[row]) == (
            completed or whole[want - 1] == tokenizer.eos_token_id
        )
        met["first"] += completed and want == 1
        met["text" if completed else "token" if whole[-1] == tokenizer.eos_token_id else "limit"] += 1
    assert min(met["text"], met["limit"], met["first"]) > 2, met
    first, again = other.llm.asked[: len(rows)], other.llm.asked[len(rows) :]
    assert all(one["stop"] == list(texts) and one["detokenize"] for one in first)
    assert all(one["stop"] is None and not one["detokenize"] for one in again) and (late is not None or again)


# The task and its settings


def test_the_reward_gets_what_stands_before_the_stop_text(tmp_path, monkeypatch):
    (tmp_path / "echoing.py").write_text("def same(response, answer):\n    return float(response == answer)\n")
    monkeypatch.syspath_prepend(tmp_path)
    rows = [{"question": f"Say {word}:", "answer": word} for word in ("yes", "no")]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataSettings(train=str(tmp_path / "q.jsonl"), held_out_problems=0, template="raw")
    reward = RewardSettings(function="echoing:same", workers=1)
    task, _ = math_task(data, reward, byte_tokenizer(), seed=0, stop=["\n", "."])
    said = [
        task.tokenizer.encode(text, add_special_tokens=False) for text in ("yes\n", "yes", "yes.x", "yes!\n", "\nyes")
    ]
    try:
        assert task.text(task.prompts[0]) == "Say yes:"
        assert [verdict.reward for verdict in task.grade([0] * 5, said)] == [1.0, 1.0, 1.0, 0.0, 0.0]
        assert stops(task)(said[0]) and not stops(task)(said[1])
    finally:
        task.close()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("rollout.stop=\\n", r'two characters, a backslash and a letter; in YAML.s double quotes, \["\\n"\]'),
        ("rollout.stop=[]", None),
        ('rollout.stop=["\\n", "###"]', ("\n", "###")),
        ("rollout.stop=END", ("END",)),
        ('rollout.stop=[""]', "must be texts, none of them empty"),
        ("rollout.stop=[1]", "must be texts"),
    ],
)
def test_stop_texts_are_taken_as_typed_or_refused_with_the_cure(typed, told):
    if isinstance(told, str):
        with pytest.raises(SettingsError, match=told):
            load(None, ["data.train=q.jsonl", typed])
        return
    settings = load(None, ["data.train=q.jsonl", typed])
    assert settings.rollout.stop == (told or ())


def test_the_walk_task_takes_no_stop_text():
    with pytest.raises(SettingsError, match=r"rollout\.stop=\['x'\] needs a file of questions, got data\.train=walk"):
        load(None, ["rollout.stop=x"])
