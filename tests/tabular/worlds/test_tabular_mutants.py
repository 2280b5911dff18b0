"""The simulator's tests can fail: each named mistake in its worlds is planted, and the named check must notice it."""

import pytest
import test_contextual
import test_sequences
import test_small_ladder
import test_world
from mutation import Mutant, assert_harmless, assert_noticed

from aepo.tabular.worlds import world
from aepo.tabular.worlds.contextual import Contextual
from aepo.tabular.worlds.ladder import Ladder
from aepo.tabular.worlds.sequences import Sequences

MUTANTS = [
    Mutant(
        "training is graded by the truth instead of the verifier",
        Contextual.verdicts.fget,
        "return self.accepted",
        "return self.correct",
        test_contextual.test_a_reward_is_by_what_the_verifier_accepts_by_hand,
    ),
    Mutant(
        "the evaluation is graded by the verifier",
        Contextual.evaluate,
        "self._success(self.features, self.correct, parameters)",
        "self._success(self.features, self.accepted, parameters)",
        test_contextual.test_a_reward_is_by_what_the_verifier_accepts_by_hand,
    ),
    Mutant(
        "a response ends at its second END",
        Sequences._graded,
        "mask = (before == 0)",
        "mask = (before <= 1)",
        test_sequences.test_a_response_that_ends_by_hand,
    ),
    Mutant(
        "a response is counted in every spelling",
        Sequences.enumerate,
        "torch.where(self._canonical(), share, 0.0)",
        "share",
        test_sequences.test_a_response_that_ends_by_hand,
    ),
    Mutant(
        "what stands after the end decides the verdict",
        Sequences._graded,
        "torch.where(before == 0, token, END)",
        "token",
        test_sequences.test_a_response_that_ends_by_hand,
    ),
    Mutant(
        "two prefixes share a state",
        Sequences.state,
        "vocabulary * state + 1 + token[..., t]",
        "vocabulary * state + token[..., t]",
        lambda: test_sequences.test_the_states_are_the_prefixes_one_number_each(3, 4),
    ),
    Mutant(
        "a prompt is solved by what its instructions forbid",
        Ladder.success,
        "share * self.right",
        "share * ~self.right",
        test_small_ladder.test_a_prompt_by_hand,
    ),
    Mutant(
        "one right hop is enough",
        Ladder._graded,
        "followed.all(-1)",
        "followed.any(-1)",
        test_small_ladder.test_a_prompt_by_hand,
    ),
    Mutant(
        "the cold evaluation is hot",
        Ladder.success,
        "(len(parameters),), temperature)",
        "(len(parameters),), 1 / temperature)",
        test_small_ladder.test_a_prompt_by_hand,
    ),
    Mutant(
        "instructions push each other with the other sign",
        Ladder.table,
        "self.features @ parameters",
        "-self.features @ parameters",
        test_small_ladder.test_a_prompt_by_hand,
    ),
    Mutant(
        "every epoch has the same order",
        world.prompts_of_step,
        'f"prompts/{seed}/{epoch}"',
        'f"prompts/{seed}"',
        test_world.test_epochs_have_orders_of_their_own_which_the_seed_decides,
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_is_noticed(mutant, monkeypatch):
    assert_noticed(mutant, monkeypatch)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_an_unchanged_line_changes_nothing(mutant, monkeypatch):
    assert_harmless(mutant, monkeypatch)
