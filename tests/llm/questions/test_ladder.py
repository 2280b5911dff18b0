"""The ladder task and what it shares with the walk: prompts, demonstrations, verifier, and a verifier that errs."""

import dataclasses
import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aepo.llm.grading import REASONS
from aepo.llm.policy.model import model_config
from aepo.llm.policy.warm_start import warm_start
from aepo.llm.questions.built_in import BUILT_IN
from aepo.llm.questions.erring import MISJUDGED, erring
from aepo.llm.questions.ladder import EASY, HARD, HELD_OUT, LEVEL_SHARES, LEVELS, PLACES, REACH, SHARES, TRAINED
from aepo.llm.questions.loading import load_task
from aepo.llm.questions.number_task import RESPONSE_TOKENS
from aepo.llm.questions.task import fingerprint
from aepo.llm.settings import SettingsError, fields, load
from aepo.llm.settings.model_source import of_run

LADDERS = ("ladder", "ladder_easy", "ladder_single")
# Five standard deviations: one in two million checks of a share fails by chance, and these are drawn once.
FAR = 5

built = cache(lambda name: BUILT_IN[name]())
numbers = st.integers(0, PLACES - 1)


def tokens(task, places: list[int]) -> list[int]:
    """A response as a model gives it."""
    return [*task.tokenizer.convert_tokens_to_ids(list(map(str, places))), task.tokenizer.eos_token_id]


def right(task, prompt: int, places: tuple[int, ...]) -> bool:
    """Read off the text of a prompt and the table, hop by hop."""
    start, *words = task.text(task.prompts[prompt]).split()
    before = int(start)
    for word, after in zip(words, places, strict=True):
        instruction = int(word[1:]) - 1 + (EASY if word[0] == "h" else 0)
        if not any(before + hop == after for hop in task.right_hops[instruction]):
            return False
        before = after
    return True


def within_chance(share: float, wanted: float, count: int) -> bool:
    return abs(share - wanted) <= FAR * math.sqrt(wanted * (1 - wanted) / count) + 1e-12


# -- the table --


@pytest.mark.parametrize("name", LADDERS)
def test_either_reading_can_be_followed_from_every_place_and_a_misread_hop_is_never_allowed(name):
    task = built(name)
    assert len(task.right_hops) == len(task.misread_hops) == len(SHARES) == EASY + HARD == 32
    for allowed, mistaken in zip(task.right_hops.tolist(), task.misread_hops.tolist(), strict=True):
        assert set(map(abs, (*allowed, *mistaken))) <= set(range(1, REACH + 1)) and not set(allowed) & set(mistaken)
        assert len(set(mistaken)) == 4 and sum(hop > 0 for hop in mistaken) == 2
        assert all(any(0 <= place + hop < PLACES for hop in mistaken) for place in range(PLACES))
        if name == "ladder_single":
            assert len(allowed) == 1
        else:
            assert len(set(allowed)) == 4 and sum(hop > 0 for hop in allowed) == 2
            assert all(any(0 <= place + hop < PLACES for hop in allowed) for place in range(PLACES))


def test_a_single_hop_is_one_of_those_that_the_ladder_allows_and_goes_either_way():
    ladder, single = built("ladder"), built("ladder_single")
    assert (single.right_hops == ladder.right_hops).any(1).all()
    assert Counter(np.sign(single.right_hops).ravel().tolist()) == {1: 16, -1: 16}
    assert (single.misread_hops == ladder.misread_hops).all()


# -- prompts --


@pytest.mark.parametrize("name", LADDERS)
def test_no_prompt_is_there_twice_and_each_has_a_right_answer(name):
    task = built(name)
    assert (len(task.train), len(task.held_out)) == (TRAINED, HELD_OUT) == (65536, 512)
    assert len(set(task.prompts)) == len(task.prompts) == TRAINED + HELD_OUT
    assert not set(task.train) & set(task.held_out) and set(map(len, task.prompts)) == {5}
    assert task.right_answers.min() >= 1


@pytest.mark.parametrize("name", ["ladder", "ladder_single"])
@pytest.mark.parametrize("part", ["train", "held_out"])
def test_a_prompts_level_is_its_number_of_hard_instructions_and_levels_have_their_shares(name, part):
    task = built(name)
    found = Counter()
    for prompt in getattr(task, part):
        hard = sum(word[0] == "h" for word in task.text(task.prompts[prompt]).split())
        assert task.levels[prompt] == LEVELS[hard]
        found[hard] += 1
    wanted = [round(share * found.total()) for share in LEVEL_SHARES]
    assert [found[level] for level in range(4)] == wanted and sum(wanted) == found.total()


def test_the_first_prompts_are_of_every_level():
    # An evaluation that is cut short takes the first.
    task = built("ladder")
    for part in (task.held_out, task.train):
        assert set(np.array(task.levels)[list(part[:64])]) == set(LEVELS)


def test_the_easy_ladder_has_easy_prompts_alone():
    assert set(built("ladder_easy").levels) == {LEVELS[0]}


def test_prompts_have_many_right_answers_and_a_spread_of_difficulty_and_hard_ones_consist_of_what_easier_ones_teach():
    """What the task was designed for, as far as it is a property of the generator: rules (a), (b) and (e)."""
    task = built("ladder")
    held_out = list(task.held_out)
    assert len(task.train) > 50_000 and len(held_out) >= 512
    assert np.mean(task.right_answers[held_out] >= 2) > 0.9
    # A model that has learnt the demonstrations is right on a prompt as often as their shares multiply to.
    success = SHARES[task.instructions[held_out]].prod(1)
    assert np.quantile(success, 0.9) > 0.25 and np.quantile(success, 0.1) < 1e-5
    assert 0.3 < np.mean(success > 1 / 256) < 0.7
    # Its commonest answer misreads the hard instructions, and each of them stands in prompts of every harder level.
    assert (SHARES[EASY:] < 0.5).all() and (SHARES[:EASY] > 0.5).sum() >= EASY - 2
    for level in LEVELS[1:]:
        at_level = np.array(task.levels) == level
        asked = set(task.instructions[at_level].ravel().tolist())
        assert asked == set(range(EASY + HARD))


def test_every_instruction_and_place_is_asked_about_as_often_as_its_kind():
    task = built("ladder")
    hard = task.instructions >= EASY
    # Of a kind that stands in so many of the slots each instruction has an equal part, up to chance.
    for kind, first, count in ((~hard, 0, EASY), (hard, EASY, HARD)):
        shares = np.bincount(task.instructions[kind] - first, minlength=count) / kind.sum()
        assert all(within_chance(share, 1 / count, int(kind.sum())) for share in shares)
    shares = np.bincount(task.starts, minlength=PLACES) / len(task.starts)
    assert all(within_chance(share, 1 / PLACES, len(task.starts)) for share in shares)
    # A hard instruction stands anywhere.
    assert all(within_chance(share, hard.mean(), len(hard)) for share in hard.mean(0))


def test_every_process_builds_the_same_task():
    code = (
        "from aepo.llm.questions.built_in import BUILT_IN; from aepo.llm.questions.task import fingerprint;"
        "t = BUILT_IN['ladder']();"
        "print(fingerprint(t, [*t.train, *t.held_out]), hash(tuple(t.demonstrations(99, right_share=0.5, seed=3))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    task = built("ladder")
    demonstrated = hash(tuple(task.demonstrations(99, right_share=0.5, seed=3)))
    # Results that are kept are of these instructions and prompts.
    assert done.stdout.split() == ["5c49b22b", str(demonstrated)]
    assert fingerprint(task, [*task.train, *task.held_out]) == "5c49b22b"


def test_variants_are_other_data():
    assert len({fingerprint(built(name), built(name).held_out) for name in LADDERS}) == len(LADDERS)


# -- verifier --


@given(prompt=st.integers(0, TRAINED + HELD_OUT - 1), places=st.lists(numbers, min_size=4, max_size=4))
def test_the_verdict_is_the_hand_written_rule(prompt, places):
    for name in LADDERS:
        task = built(name)
        (verdict,) = task.grade([prompt], [tokens(task, places)])
        assert verdict.reward == right(task, prompt, tuple(places)) and verdict.reason in REASONS
        start = int(task.text(task.prompts[prompt]).split()[0])
        hops = [after - before for before, after in itertools.pairwise([start, *places])]
        assert list(map(int, verdict.extracted.split())) == hops
        assert verdict.right == all(
            hop in map(int, allowed.split()) for hop, allowed in zip(hops, task.answer(prompt).split(", "), strict=True)
        )


@given(prompt=st.integers(0, TRAINED + HELD_OUT - 1), seed=st.integers(0, 2**32 - 1))
def test_one_hop_that_is_not_allowed_makes_a_right_answer_wrong(prompt, seed):
    task, rng = built("ladder"), np.random.default_rng(seed)
    places = [int(task.starts[prompt])]
    for instruction in task.instructions[prompt]:
        places.append(rng.choice([p for p in places[-1] + task.right_hops[instruction] if 0 <= p < PLACES]))
    assert task.grade([prompt], [tokens(task, places[1:])])[0].reward == 1
    # The mirror image of a hop, the hop beside it, the instruction of another hop: only what is allowed passes.
    for at, other in itertools.product(range(1, 5), range(PLACES)):
        changed = (*places[1:at], other, *places[at + 1 :])
        assert task.grade([prompt], [tokens(task, changed)])[0].reward == right(task, prompt, changed)


@settings(max_examples=10)
@given(prompt=st.integers(0, TRAINED + HELD_OUT - 1))
def test_the_right_answers_are_as_many_as_are_found_by_trying_all(prompt):
    for name in LADDERS:
        task = built(name)
        table = [set(hops) for hops in task.right_hops.tolist()]
        ways = [(int(task.starts[prompt]),)]
        for instruction in task.instructions[prompt]:
            ways = [(*way, p) for way in ways for p in range(PLACES) if p - way[-1] in table[instruction]]
        assert task.right_answers[prompt] == len(ways) == len(set(ways))
        verdicts = task.grade([prompt] * len(ways), [tokens(task, way[1:]) for way in ways])
        assert all(verdict.right for verdict in verdicts)


@pytest.mark.parametrize("name", ["walk", *LADDERS])
def test_what_is_no_answer_is_refused(name):
    task = built(name)
    (prompt, response), *_ = (
        one for one in task.demonstrations(2000, right_share=1.0, seed=0) if task.grade([one[0]], [one[1]])[0].right
    )
    end, pad = task.tokenizer.eos_token_id, task.tokenizer.pad_token_id
    asked = task.prompts[prompt][-1]
    said = list(response[:-1])
    malformed = [
        [], [end], said, [*said[:3], end], [*said, said[-1], end], [*said, end, end], [*said[:2], end, *said[2:]],
        [*said[:3], pad, end], [*said, pad], [end, *said], [*said[:3], asked, end], [*said[:3], 10**6, end],
    ]  # fmt: skip
    verdicts = task.grade([prompt] * len(malformed), malformed)
    assert {(v.reward, v.extracted, v.reason) for v in verdicts} == {(0.0, None, "no answer")}
    assert task.grade([prompt], [[*said, end]])[0].reward == 1


def test_the_ceiling_is_the_mean_log_of_the_right_answers_over_their_tokens():
    task = built("ladder")
    few = dataclasses.replace(task, train=[3, 700])
    one, other = (int(task.right_answers[prompt]) for prompt in (3, 700))
    assert few.entropy_ceiling == pytest.approx(math.log(one * other) / 2 / RESPONSE_TOKENS)
    assert 0.9 < task.entropy_ceiling < 0.95 and built("ladder_single").entropy_ceiling == 0
    assert 100 < np.median(task.right_answers) < 120


# -- demonstrations --


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30))
@settings(max_examples=30)
def test_every_demonstration_is_an_answer_to_a_training_prompt_of_which_each_hop_is_of_one_reading(seed, count):
    for name in LADDERS:
        task = built(name)
        pairs = task.demonstrations(count, right_share=0.5, seed=seed)
        assert pairs == task.demonstrations(count, right_share=0.5, seed=seed) and len(pairs) == count
        for (prompt, response), verdict in zip(pairs, task.grade(*zip(*pairs, strict=True)), strict=True):
            assert prompt in task.train and len(response) == RESPONSE_TOKENS and verdict.extracted is not None
            hops = list(map(int, verdict.extracted.split()))
            readings = task.instructions[prompt].tolist()
            rightly = [hop in task.right_hops[k] for hop, k in zip(hops, readings, strict=True)]
            misread = [hop in task.misread_hops[k] for hop, k in zip(hops, readings, strict=True)]
            # One misread hop, and the response is wrong.
            assert all(a != b for a, b in zip(rightly, misread, strict=True)) and verdict.right == all(rightly)


def followed(name: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 4) each: instructions of demonstrations, the hops, and the places before them."""
    task = built(name)
    pairs = task.demonstrations(count, right_share=0.5, seed=1)
    prompts = np.array([prompt for prompt, _ in pairs])
    said = np.array([[task.number_of[token] for token in response[:-1]] for _, response in pairs])
    before = np.column_stack([task.starts[prompts], said[:, :-1]])
    return task.instructions[prompts], said - before, before


def test_each_instruction_is_followed_rightly_with_its_own_share_at_every_hop_by_itself():
    task = built("ladder")
    instructions, hops, _ = followed("ladder", 60_000)
    rightly = (task.right_hops[instructions] == hops[..., None]).any(-1)
    for instruction, share in enumerate(SHARES):
        here = instructions == instruction
        assert within_chance(rightly[here].mean(), share, int(here.sum()))
    # Whether the hop before was misread says nothing.
    expected = SHARES[instructions]
    after_misreading = ~rightly[:, :-1]
    left = (rightly[:, 1:] - expected[:, 1:])[after_misreading]
    deviation = math.sqrt((expected * (1 - expected))[:, 1:][after_misreading].sum())
    assert abs(left.sum()) <= FAR * deviation


def test_hops_are_uniform_over_those_of_the_reading_that_stay_on_the_line():
    task = built("ladder")
    instructions, hops, before = followed("ladder", 60_000)
    for table, instruction in ((task.right_hops, 0), (task.misread_hops, EASY)):
        for place in (0, 10, 19):
            here = (instructions == instruction) & (before == place)
            options = [hop for hop in table[instruction].tolist() if 0 <= place + hop < PLACES]
            met = Counter(hops[here].tolist())
            count = sum(met[hop] for hop in options)
            assert count > 100
            assert all(within_chance(met[hop] / count, 1 / len(options), count) for hop in options)


def test_a_right_hop_of_the_single_ladder_that_leads_off_the_line_is_misread():
    task = built("ladder_single")
    instructions, hops, before = followed("ladder_single", 30_000)
    possible = (before + task.right_hops[instructions, 0] >= 0) & (before + task.right_hops[instructions, 0] < PLACES)
    rightly = task.right_hops[instructions, 0] == hops
    misread = (task.misread_hops[instructions] == hops[..., None]).any(-1)
    assert (~possible).any() and misread[~possible].all() and not (rightly & misread).any()
    easiest = possible & (instructions == 0)
    assert within_chance(rightly[easiest].mean(), SHARES[0], int(easiest.sum()))


def test_demonstrations_are_right_as_often_as_their_shares_multiply_to():
    task = built("ladder")
    pairs = task.demonstrations(60_000, right_share=0.5, seed=2)
    prompts, responses = zip(*pairs, strict=True)
    right = np.array([verdict.right for verdict in task.grade(prompts, responses)])
    expected = SHARES[task.instructions[list(prompts)]].prod(1)
    assert abs((right - expected).sum()) <= FAR * math.sqrt((expected * (1 - expected)).sum())


# -- a verifier that errs --


def graded(count: int = 20_000) -> tuple:
    task = built("ladder_easy")
    prompts, responses = zip(*task.demonstrations(count, right_share=0.5, seed=4), strict=True)
    prompts, responses = [*prompts, *prompts[:100]], [*responses, *(one[:-1] for one in responses[:100])]
    return prompts, responses, task.grade(prompts, responses)


@pytest.mark.parametrize("rates", [(0.1, 0.0), (0.0, 0.3), (0.02, 0.2), (0.9, 0.9)])
def test_errors_have_their_rates_and_are_the_same_on_every_call(rates):
    prompts, responses, verdicts = graded()
    chosen = {"false_positives": rates[0], "false_negatives": rates[1]}
    found = erring(verdicts, prompts, responses, **chosen, seed=7)
    assert found == erring(verdicts, prompts, responses, **chosen, seed=7)
    # Neither the order nor what else is judged matters, as with ranks and resumed runs.
    backwards = erring(verdicts[::-1], prompts[::-1], [list(one) for one in responses[::-1]], **chosen, seed=7)
    assert backwards[::-1] == found
    if max(rates) < 0.5:
        assert found != erring(verdicts, prompts, responses, **chosen, seed=8)
    for reason, rate in zip(("wrong", "exact"), rates, strict=True):
        met = {}
        for prompt, response, true, said in zip(prompts, responses, verdicts, found, strict=True):
            if true.reason == reason:
                met[prompt, response] = true.reward != said.reward
        assert within_chance(sum(met.values()) / len(met), rate, len(met))
    for true, said in zip(verdicts, found, strict=True):
        assert said == true or (said.reason, said.extracted) == (MISJUDGED, true.extracted)
        if true.reason == "no answer":
            assert said == true
    assert MISJUDGED in REASONS


def test_one_answer_to_many_prompts_is_misjudged_for_its_share_of_them():
    # Hops of up to 19 places, which no instruction allows.
    task, count = built("ladder"), 5000
    responses = [tokens(task, [0, 19, 0, 19])] * count
    found = erring(
        task.grade(range(count), responses), range(count), responses, false_positives=0.2, false_negatives=0.0, seed=1
    )
    assert within_chance(sum(verdict.right for verdict in found) / count, 0.2, count)


def test_without_rates_nothing_is_turned_over():
    prompts, responses, verdicts = graded(200)
    assert erring(verdicts, prompts, responses, false_positives=0.0, false_negatives=0.0, seed=0) == verdicts


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["reward.false_positives=0.1", "data.train=q.jsonl"], "false_positives=0.1 needs a built-in task .*q.jsonl"),
        (["reward.false_negatives=0.1", "data.train=gsm8k"], "false_negatives=0.1 needs a built-in task .*gsm8k"),
        (["reward.false_positives=1"], "reward.false_positives: .*less than 1"),
        (["reward.false_negatives=-0.1"], "reward.false_negatives: .*greater than or equal to 0"),
        (["rollout.stop=x"], r"rollout\.stop=\['x'\] needs a file of questions, got data\.train=ladder"),
    ],
)
def test_settings_that_do_not_go_with_the_task_are_named(typed, said):
    with pytest.raises(SettingsError, match=said):
        load("ladder_cpu", typed)


# -- the registry --


def test_the_settings_know_the_tasks_that_can_be_built_and_only_these():
    assert tuple(BUILT_IN) == fields.BUILT_IN
    for name in BUILT_IN:
        chosen = load(None, [f"data.train={name}", "evaluation.every=5", "data.held_out_problems=0"])
        task = load_task(chosen)
        assert chosen.data.built_in and task.prompts == built(name).prompts
        assert task.held_out and task.levels == built(name).levels
    assert not load(None, ["data.train=walks.jsonl"]).data.built_in


def test_a_model_from_scratch_has_the_tasks_words_also_where_the_task_is_not_loaded():
    for name in BUILT_IN:
        assert model_config(load(None, [f"data.train={name}"]), None).vocab_size == len(built(name).tokenizer)
    assert len(built("ladder").tokenizer) == 54


def test_tasks_and_their_variants_have_warm_starts_of_their_own(tmp_path):
    typed = ["model.hidden_size=16", "model.layers=1", "warm_start.steps=1", "warm_start.rows=2"]
    folders = {}
    for name in BUILT_IN:
        chosen = load(None, [*typed, f"data.train={name}", f"warm_start.cache={tmp_path}"])
        folders[name] = warm_start(chosen, load_task(chosen))
        assert warm_start(chosen, load_task(chosen)) == folders[name]
        assert of_run(str(folders[name])).tokenizer().get_vocab() == built(name).tokenizer.get_vocab()
    assert len(set(folders.values())) == len(BUILT_IN)


def test_a_model_of_another_task_is_refused(tmp_path):
    built("walk").tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    with pytest.raises(Exception, match="its tokenizer is not the ladder task's"):
        load_task(load(None, [f"model.path={tmp_path}", "data.train=ladder"]))
    built("ladder").tokenizer.save_pretrained(tmp_path)
    assert load_task(load(None, [f"model.path={tmp_path}", "data.train=ladder_easy"])).prompts
