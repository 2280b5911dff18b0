"""What ends a response: the model's own end tokens and the one that closes a turn in the template."""

import logging

import pytest
import torch
from tiny_models import chatting, tiny

from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.questions.end_tokens import described, end_ids, published_ends
from aepo.llm.questions.files import DataError
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.questions.task import math_task
from aepo.llm.settings import DataSettings, RewardSettings

EOS, CLOSES = 1, 258


def qwen(tokenizer=None):
    """As Qwen2.5-Math's: one token ends a text, another a turn, and both are special."""
    tokenizer = byte_tokenizer() if tokenizer is None else tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    # Ours spells special tokens that stand in a text; theirs reads them.
    tokenizer.split_special_tokens = False
    return tokenizer


@pytest.mark.parametrize("template", ["qwen_math", "qwen", "qwen3", "chat"])
def test_a_closed_turn_ends_a_response_unless_only_the_models_ends_are_asked_for(template):
    tokenizer = qwen(chatting(None))
    assert end_ids(tokenizer, template, ends="turn") == (EOS, CLOSES)
    assert end_ids(tokenizer, template, ends="model") == (EOS,)
    assert end_ids(tokenizer, template, ends="turn", published=(CLOSES, EOS, 9)) == (EOS, CLOSES, 9)
    assert end_ids(tokenizer, template, ends="model", published=(9,)) == (EOS, 9)


def test_a_template_without_turns_or_a_tokenizer_that_spells_them_adds_nothing():
    assert end_ids(qwen(), "plain", ends="turn") == (EOS,)
    # There <|im_end|> is ten bytes, the first of which is no end.
    assert end_ids(byte_tokenizer(), "qwen3", ends="turn") == (EOS,)
    assert end_ids(chatting(None), "chat", ends="turn") == (EOS,)


@pytest.mark.parametrize(
    "body", ["{{ raise_exception('no answers here') }}", "{{ messages[0]['content'] }}"], ids=["raises", "shows none"]
)
def test_a_chat_template_that_shows_no_answer_leaves_the_models_end_and_says_so(caplog, body):
    tokenizer = qwen()
    tokenizer.chat_template = body
    assert end_ids(tokenizer, "chat", ends="turn") == (EOS,)
    assert "the chat template shows no answer" in caplog.text and "not where a turn would close" in caplog.text


def test_the_publishers_end_tokens_are_read_and_an_unreadable_file_is_named(tmp_path):
    assert published_ends(str(tmp_path)) == ()
    file = tmp_path / "generation_config.json"
    for text, ends in [('{"eos_token_id": [8, 7]}', (8, 7)), ('{"eos_token_id": 5}', (5,)), ("{}", ())]:
        file.write_text(text)
        assert published_ends(str(tmp_path)) == ends
    file.write_text('{"eos_token_id": [8')
    with pytest.raises(DataError, match=r"generation_config\.json: unreadable, and it may name end tokens"):
        published_ends(str(tmp_path))


def test_the_embedded_engine_ends_rows_at_either_token_and_a_second_end_token_changes_no_other_row():
    def sampled(*ends):
        engine = EmbeddedEngine(model=tiny(), end_ids=ends, pad_id=0, max_tokens=6)
        return engine.sample([[2, 3]], n=64, temperature=1.0, row_seeds=torch.arange(64).numpy().astype("uint64"))

    one = sampled(1)
    often = int(torch.bincount(one.token[one.token > 1]).argmax())
    two = sampled(1, often)
    met = 0
    for before, row, mask in zip(one.token.tolist(), two.token.tolist(), two.mask, strict=True):
        length = int(mask.sum())
        assert row[:length] == before[:length]
        assert not {1, often} & set(row[: length - 1]) and (length == 6 or row[length - 1] in (1, often))
        met += row[length - 1] == often
    assert met > 16


def test_the_run_says_what_ends_a_response_and_the_task_holds_it(tmp_path, caplog):
    (tmp_path / "q.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n{"question": "2+2?", "answer": "4"}\n')
    ends = {}
    for wanted in ("turn", "model"):
        data = DataSettings(
            train=str(tmp_path / "q.jsonl"), template="qwen_math", held_out_problems=0, end_tokens=wanted
        )
        with caplog.at_level(logging.INFO, logger="aepo"):
            task, _ = math_task(data, RewardSettings(workers=1), qwen(), seed=0, published_ends=(9,))
        task.close()
        ends[wanted] = task.end_ids
    assert ends == {"turn": (EOS, 9, CLOSES), "model": (EOS, 9)}
    assert f"responses end with {described(task.tokenizer, ends['turn'])}" in caplog.text
    assert described(task.tokenizer, (EOS, CLOSES)) == "<eos> (1), <|im_end|> (258)"
    # It is none of the text that is judged.
    assert task.text((*task.tokenizer.encode("4"), CLOSES)) == "4"
