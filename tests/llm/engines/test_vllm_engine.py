"""vLLM as the rollout engine, for real: skips where it is not installed (`make test-vllm` installs and tests it)."""

import itertools
import os
from collections import Counter

import numpy as np
import pytest
import torch
from byte_models import END, PAD, TOKENIZER, VOCABULARY, join_a_group_of_one, moved, tiny
from scipy.stats import chisquare

from aepo.llm import seeds
from aepo.llm.engines import canary
from aepo.llm.engines.embedded import nucleus
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.questions.stop_texts import StopTexts

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm installs and tests it")


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied embeddings"])
def pair(request):
    """A trainer's policy over the canary's prompts, and a vLLM engine of the same architecture."""
    from aepo.llm.engines.vllm_engine import VLLMEngine

    join_a_group_of_one()
    before = dict(os.environ)
    model = tiny(request.param)
    engine = VLLMEngine(model, TOKENIZER, end_ids=[TOKENIZER.eos_token_id], max_length=canary.LONGEST + 8, max_tokens=8)
    after = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    assert after == {name: value for name, value in before.items() if not name.startswith("VLLM_")}
    stepper = TorchStepper(ResponseStats(model), torch.optim.SGD(model.parameters(), lr=1.0), max_grad_norm=1.0)
    prompts = canary.canary_prompts(VOCABULARY)
    policy = Policy(stepper, prompts, pad_id=PAD, token_budget=10_000, lr=0.1)
    yield policy, engine, prompts
    engine.close()


def test_every_push_arrives_and_a_forgotten_one_stops_the_run(pair):
    policy, engine, prompts = pair
    bird = canary.Canary(policy, prompts, limit=1e-3)
    for version in range(3):
        engine.load(policy.stepper.weights())
        found = bird.check(engine, version=version)
        assert found["sync/canary"] < 1e-4 and found["sync/weight_version"] == version
        moved(policy)
    with pytest.raises(canary.StaleWeightsError, match="weight version 3 the rollout engine does not sample"):
        bird.check(engine, version=3)


def test_an_update_too_small_for_the_limit_is_still_seen_to_be_missing(pair):
    policy, engine, prompts = pair
    bird = canary.Canary(policy, prompts, limit=1e-3)
    engine.load(policy.stepper.weights())
    bird.check(engine, version=0)
    moved(policy, scale=1e-6)
    with pytest.raises(canary.StaleWeightsError, match="answers to the last bit"):
        bird.check(engine, version=1)


def test_a_prefix_cache_that_is_kept_is_seen(pair, monkeypatch):
    policy, engine, prompts = pair
    engine.load(policy.stepper.weights())
    canary.Canary(policy, prompts, limit=1e-3).check(engine, version=0)
    moved(policy)
    monkeypatch.setattr(engine.llm, "reset_prefix_cache", lambda: None)
    engine.load(policy.stepper.weights())
    with pytest.raises(canary.StaleWeightsError):
        canary.Canary(policy, prompts, limit=1e-3).check(engine, version=1)


def test_temperatures_share_one_call_and_each_log_prob_is_at_its_own(pair):
    policy, engine, prompts = pair
    engine.load(policy.stepper.weights())
    temperature = np.where(np.arange(len(prompts)) % 2 == 0, 1.0, 1.4)
    rows = seeds.row_seeds(0, 0, "main", np.arange(len(prompts)), 3)
    said = engine.sample(prompts, n=3, temperature=temperature, row_seeds=rows)
    again = engine.sample(prompts, n=3, temperature=temperature, row_seeds=rows)
    assert torch.equal(said.token, again.token) and torch.equal(said.logp, again.logp)
    other = engine.sample(prompts, n=3, temperature=temperature, row_seeds=rows + np.uint64(2))
    assert said.token.shape != other.token.shape or not torch.equal(said.token, other.token)
    for row in range(len(said.token)):
        prompt, length = prompts[row // 3], int(said.mask[row].sum())
        tokens = said.token[row, :length]
        with torch.no_grad():
            logits = policy.model(torch.tensor([list(prompt) + tokens.tolist()])).logits[0, len(prompt) - 1 : -1]
        want = (logits / float(temperature[row // 3])).log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(said.logp[row, :length], want, rtol=0, atol=1e-3)
        assert (tokens[:-1] != END).all() and (length == 8 or tokens[-1] == END), "ends at the end token"
        assert (said.token[row, length:] == PAD).all()


def test_more_prompt_tokens_than_the_engine_fills_in_at_once_change_no_response(pair):
    policy, engine, _ = pair
    engine.load(policy.stepper.weights())
    prompts = [[2 + (7 * row + i) % 250 for i in range(100 + row % 90)] for row in range(100)]
    assert sum(map(len, prompts)) > 2 * engine.llm.llm_engine.vllm_config.scheduler_config.max_num_batched_tokens
    rows = seeds.row_seeds(0, 0, "main", np.arange(len(prompts)), 1)
    said = engine.sample(prompts, n=1, temperature=1.0, row_seeds=rows)
    for chosen in ([0], [37, 38], [99]):
        alone = engine.sample([prompts[i] for i in chosen], n=1, temperature=1.0, row_seeds=rows[chosen])
        width = alone.token.shape[1]
        assert torch.equal(said.token[chosen, :width], alone.token)
        assert torch.equal(said.mask[chosen, :width], alone.mask) and not said.mask[chosen, width:].any()


def test_a_response_ends_at_any_end_token_which_is_its_last(pair, monkeypatch):
    policy, engine, prompts = pair
    engine.load(policy.stepper.weights())
    asked = {"n": 20, "temperature": 1.0, "row_seeds": seeds.row_seeds(0, 0, "main", np.arange(len(prompts)), 20)}
    one = engine.sample(prompts, **asked)
    often = int(torch.bincount(one.token[one.token > END]).argmax())
    monkeypatch.setattr(engine, "end_ids", [END, often])
    two = engine.sample(prompts, **asked)
    met = 0
    for before, row, mask in zip(one.token.tolist(), two.token.tolist(), two.mask, strict=True):
        length = int(mask.sum())
        assert row[:length] == before[:length]
        assert not {END, often} & set(row[: length - 1]) and (length == 8 or row[length - 1] in (END, often))
        met += row[length - 1] == often
    assert met > 5


def test_a_stop_text_ends_the_same_responses_with_the_token_that_completes_it_and_charges_that(pair, monkeypatch):
    policy, engine, prompts = pair
    engine.load(policy.stepper.weights())
    asked = {"n": 40, "temperature": 1.0, "row_seeds": seeds.row_seeds(0, 0, "main", np.arange(len(prompts)), 40)}
    free = engine.sample(prompts, **asked)
    whole = [row[: int(mask.sum())] for row, mask in zip(free.token.tolist(), free.mask, strict=True)]
    letters = [i for i in range(VOCABULARY) if TOKENIZER.decode([i]).isascii() and TOKENIZER.decode([i]).isprintable()]
    pairs = Counter(two for row in whole for two in itertools.pairwise(row) if set(two) <= set(letters))
    singles = Counter(one for row in whole for one in row if one in letters)
    # One of two tokens, one of a token, and one that nobody says.
    texts = (TOKENIZER.decode(pairs.most_common(1)[0][0]), TOKENIZER.decode(singles.most_common(1)[0][0]), "never said")
    stop = StopTexts(tokenizer=TOKENIZER, texts=texts)
    monkeypatch.setattr(engine, "stop", stop)
    stopped = engine.sample(prompts, **asked)
    ends = Counter()
    for row, before in enumerate(whole):
        length = int(stopped.mask[row].sum())
        assert stopped.token[row, :length].tolist() == before[: stop.length(before)]
        assert stopped.mask[row, :length].all() and (stopped.token[row, length:] == PAD).all()
        torch.testing.assert_close(stopped.logp[row, :length], free.logp[row, :length], rtol=0, atol=1e-4)
        met = stop.completed(before[:length])
        assert met or length == len(before), "a text that was never met changes nothing"
        ends["first token" if met and length == 1 else "later" if met else "never"] += 1
    assert min(ends["first token"], ends["later"], ends["never"]) > 0


def test_what_the_prompt_says_ends_no_response(pair, monkeypatch):
    # vLLM decodes the prompt along where it is no valid text, and finds the stop text there.
    policy, engine, _ = pair
    engine.load(policy.stepper.weights())
    (percent,) = TOKENIZER.encode("%", add_special_tokens=False)
    broken = [i for i in range(VOCABULARY) if TOKENIZER.decode([i]) == "\ufffd"]
    prompts = [(percent, *broken[start : start + 40 : 2], percent, *broken[-3:]) for start in range(30)]
    asked = {"n": 8, "temperature": 1.0, "row_seeds": seeds.row_seeds(0, 0, "main", np.arange(len(prompts)), 8)}
    free = engine.sample(prompts, **asked)
    stop, whole, ended = StopTexts(tokenizer=TOKENIZER, texts=("%",)), engine._ended_for_nothing, []
    monkeypatch.setattr(engine, "stop", stop)
    monkeypatch.setattr(engine, "_ended_for_nothing", lambda answer: ended.append(whole(answer)) or ended[-1])
    stopped = engine.sample(prompts, **asked)
    assert any(ended), "no prompt was taken for a response: this test tests nothing"
    for row, before in enumerate(free.token.tolist()):
        before = before[: int(free.mask[row].sum())]
        assert stopped.token[row, : int(stopped.mask[row].sum())].tolist() == before[: stop.length(before)]


def test_a_nucleus_is_the_embedded_engines_and_so_are_its_log_probs(pair):
    policy, engine, prompts = pair
    engine.load(policy.stepper.weights())
    rows = seeds.row_seeds(0, 0, "main", np.arange(1), 300)
    said = engine.sample(prompts[:1], n=300, temperature=1.3, row_seeds=rows, max_tokens=1, top_p=0.7)
    with torch.no_grad():
        logits = policy.model(torch.tensor([list(prompts[0])])).logits[0, -1]
    want = nucleus((logits / 1.3).log_softmax(-1).unsqueeze(0), 0.7)[0]
    assert (want > -torch.inf).sum() < VOCABULARY - 10
    torch.testing.assert_close(said.logp[:, 0], want[said.token[:, 0]], rtol=0, atol=1e-3)


def test_a_prompt_that_leaves_no_room_for_the_response_is_refused(pair):
    from aepo.llm.engines.engine import EngineError

    _, engine, _ = pair
    with pytest.raises(EngineError, match=r"prompt of 204 tokens and a response of 8 are longer than the engine's 208"):
        engine.sample([[5] * 204], n=1, temperature=1.0, row_seeds=seeds.row_seeds(0, 0, "main", np.arange(1), 1))


def test_samples_have_the_frequencies_of_the_model(pair):
    policy, engine, prompts = pair
    engine.load(policy.stepper.weights())
    count = 2000
    said = engine.sample(
        prompts[:1],
        n=count,
        temperature=1.3,
        row_seeds=seeds.row_seeds(0, 0, "main", np.arange(1), count),
        max_tokens=1,
    )
    with torch.no_grad():
        probability = (policy.model(torch.tensor([prompts[0]])).logits[0, -1] / 1.3).softmax(-1).double()
    found = torch.bincount(said.token[:, 0], minlength=VOCABULARY).double()
    # Tokens that are expected fewer than five times count as one, as the chi-square test asks.
    often = probability * count >= 5
    assert often.sum() > 10
    observed, expected = (torch.cat([x[often], x[~often].sum().view(1)]) for x in (found, probability * count))
    assert chisquare(observed.numpy(), (expected * count / expected.sum()).numpy()).pvalue > 1e-3


def test_a_weight_that_is_not_sent_is_named(pair):
    from aepo.llm.engines.engine import EngineError

    policy, engine, _ = pair
    with pytest.raises(EngineError, match=r"no weight for the engine's model\.norm\.weight"):
        engine.load((n, w) for n, w in policy.stepper.weights() if n != "model.norm.weight")
