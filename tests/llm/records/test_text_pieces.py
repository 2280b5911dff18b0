"""The pieces of a text by its tokens, for the ways in which tokenizers write texts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.questions.walk import walk_task
from aepo.llm.records.text_pieces import LONGEST_CHARACTER, UNKNOWN, text_pieces

BYTES = byte_tokenizer()


def text(tokens) -> str:
    return BYTES.decode(list(tokens), skip_special_tokens=True)


def pieces(tokens) -> list[str]:
    return text_pieces(text, tokens, name=BYTES.convert_ids_to_tokens)


@given(st.text(max_size=30).filter(lambda one: UNKNOWN not in one), st.booleans())
def test_the_pieces_together_are_the_text_and_the_last_byte_of_a_character_has_it(words, ends):
    tokens = BYTES.encode(words) + [BYTES.eos_token_id] * ends
    found = pieces(tokens)
    assert len(found) == len(tokens)
    assert "".join(found) == words + "<eos>" * ends
    # A byte a token: a character stands at its last one.
    expected = [piece for one in words for piece in [""] * (len(one.encode()) - 1) + [one]]
    assert found == expected + ["<eos>"] * ends


def test_bytes_that_are_no_text_cost_no_character_beside_them():
    rng = random.Random(0)
    for _ in range(100):
        tokens = [rng.randrange(len(BYTES)) for _ in range(40)]
        found = pieces(tokens)
        assert len(found) == len(tokens)
        whole = "".join(piece for piece, token in zip(found, tokens, strict=True) if token > 1)
        assert whole.replace(UNKNOWN, "") == text(tokens).replace(UNKNOWN, "")
        assert [piece for piece, token in zip(found, tokens, strict=True) if token == 1] == ["<eos>"] * tokens.count(1)


def test_a_response_that_is_cut_within_a_character_says_so_at_its_last_byte():
    tokens = BYTES.encode("h\u00e9 \U0001f600")
    assert pieces(tokens[:-1]) == ["h", "", "\u00e9", " ", "", "", UNKNOWN]
    assert pieces([*tokens[:2], BYTES.eos_token_id]) == ["h", UNKNOWN, "<eos>"]


@pytest.mark.parametrize("byte", [0x80, 0xF0])
def test_a_long_run_of_bytes_that_are_no_text_is_read_a_few_at_a_time(byte):
    read = []

    def counted(tokens) -> str:
        read.append(len(tokens))
        return text(tokens)

    text_pieces(counted, [byte + 2] * 500, name=BYTES.convert_ids_to_tokens)
    assert max(read) <= 2 * LONGEST_CHARACTER


def test_a_blank_that_a_token_has_only_behind_another_is_its_own():
    # As in Llama 2 and Gemma: a blank begins a word, and the first one of a text is not written.
    words = ["▁Hello", "▁world", "▁", "ly", "<end>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[])),
        eos_token="<end>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.backend_tokenizer.decoder = decoders.Metaspace()
    tokens = [0, 1, 3, 2, 2, 1, 4, 1, 0, 4, 4]

    def of(some) -> str:
        return tokenizer.decode(list(some), skip_special_tokens=True)

    assert of(tokens) == "Hello worldly   world world Hello" and of([1]) == "world"
    found = text_pieces(of, tokens, name=tokenizer.convert_ids_to_tokens)
    expected = "Hello| world|ly| | | world|<end>| world| Hello|<end>|<end>"
    assert found == expected.split("|")


def test_words_with_blanks_between_them_keep_these():
    task = walk_task()
    ids = task.tokenizer.get_vocab()
    tokens = [ids[word] for word in ("+1", "-2", "<eos>")]
    assert text_pieces(task.text, tokens, name=task.tokenizer.convert_ids_to_tokens) == ["+1", " -2", " <eos>"]
    assert pieces([]) == []
