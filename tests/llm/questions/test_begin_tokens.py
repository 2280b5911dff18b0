"""The begin token of a tokenizer stands before every prompt, once; its end token never behind one."""

import logging
from pathlib import Path

import pytest
from tiny_models import chatting
from tokenizers import processors

from aepo.llm.evaluation.exams import examined
from aepo.llm.evaluation.options import parse
from aepo.llm.evaluation.prompting import Manner
from aepo.llm.evaluation.suite import Question
from aepo.llm.grading.reference import Reference
from aepo.llm.questions.begin_tokens import begin_ids, encoded
from aepo.llm.questions.small_tokenizers import EOS, byte_tokenizer
from aepo.llm.questions.task import math_task
from aepo.llm.settings import DataSettings, RewardSettings

BOS, MASK = "<s>", "[gMASK]"
BEGINS = {"none": [], "one": [BOS], "two": [MASK, BOS]}


def tokenizer_with(*, begins: str, ends: bool, template: str):
    """A tokenizer of bytes whose post-processor puts tokens around a text."""
    made = chatting("Be right.") if template != "plain" else byte_tokenizer()
    # As published ones do, it reads special tokens that a template writes.
    made.split_special_tokens = False
    made.add_special_tokens({"bos_token": BOS, "additional_special_tokens": [MASK]})
    around = [*BEGINS[begins], "$A", *([EOS] if ends else [])]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(around), special_tokens=[(t, made.convert_tokens_to_ids(t)) for t in (BOS, MASK, EOS)]
    )
    if template == "chat with begin":
        made.chat_template = "".join(BEGINS[begins]) + made.chat_template
    return made


CASES = [
    (begins, ends, template)
    for begins in BEGINS
    for ends in (False, True)
    for template in ("plain", "chat", "chat with begin")
]


@pytest.mark.parametrize(("begins", "ends", "template"), CASES)
def test_training_and_evaluation_begin_every_prompt_with_it_once(tmp_path, caplog, begins, ends, template):
    tokenizer = tokenizer_with(begins=begins, ends=ends, template=template)
    begin = tuple(tokenizer.convert_tokens_to_ids(t) for t in BEGINS[begins])
    assert begin_ids(tokenizer, "A") == begin
    name = template.split()[0]
    (tmp_path / "q.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n{"question": "1+2?", "answer": "3"}\n')
    data = DataSettings(train=str(tmp_path / "q.jsonl"), template=name, held_out_problems=0)
    with caplog.at_level(logging.INFO, logger="aepo"):
        task, _ = math_task(data, RewardSettings(workers=1), tokenizer, seed=0)
    task.close()
    special = {tokenizer.convert_tokens_to_ids(t) for t in (BOS, MASK, EOS)}
    for prompt in task.prompts:
        assert prompt[: len(begin)] == begin and not special & set(prompt[len(begin) :])
    starts = ["<|im_start|>", "Question"][name == "plain"]
    assert tokenizer.decode(task.prompts[0][len(begin) :]).startswith(starts)
    first = task.prompts[0]
    shown = f"begins with {tokenizer.convert_ids_to_tokens(first[0])} ({first[0]}), "
    assert caplog.text.count(shown) == 1
    assert evaluated(tokenizer, name, tmp_path) == list(task.prompts)


def evaluated(tokenizer, template: str, folder: Path) -> list[tuple[int, ...]]:
    """What an evaluation asks, of the same two questions."""
    import contextlib

    from aepo.llm.evaluation.evaluated_model import Subject

    reference = Reference(answers=("2",), published="2").to_json()
    questions = [
        Question(benchmark="aime24", index=i, question=q, reference=reference) for i, q in enumerate(["1+1?", "1+2?"])
    ]
    subject = Subject(source="m", place=str(folder), config=None, tokenizer=tokenizer, fingerprint="")
    manner = Manner(template=template, system_prompt=None, instruction=None, end_tokens="model", reason="as asked")
    options = parse(["--model=m", "--suite=aime24"])
    with contextlib.ExitStack() as stack:
        exams = examined(options, subject, manner, {"aime24": questions}, stack)
        return exams["aime24"].tokens


def test_a_text_that_has_the_begin_token_gets_no_second_one():
    tokenizer = tokenizer_with(begins="one", ends=True, template="plain")
    begin = tokenizer.bos_token_id
    places = [f"f, row {row}" for row in (1, 2, 3, 4)]
    texts = [f"{BOS}1+1?", "1+1?", f"\n{BOS}1+1?", f"Is {BOS} a tag?"]
    with_it, without, behind_a_line, inside = encoded(tokenizer, texts, places=places)
    assert behind_a_line.count(begin) == 1 and inside[0] == begin and inside.count(begin) == 2
    assert with_it == without and with_it.count(begin) == 1 and tokenizer.eos_token_id not in with_it
