"""Preset files: what extends what, variants, and that every preset of the repository loads, builds and fits."""

import itertools
import re
from pathlib import Path

import pytest
import torch
from published_models import QWEN3_4B, QWEN_7B

from aepo import zoo
from aepo.llm import train
from aepo.llm.doctor import __main__ as doctor
from aepo.llm.settings import SettingsError, load, parse, presets
from aepo.method import by_advantage, by_reward
from aepo.weights import sequence_mean, token_mean

CONFIGS = presets.FOLDER
MODELS = {"aepo_qwen2.5_math_7b": QWEN_7B, "aepo_qwen2.5_7b": QWEN_7B, "aepo_qwen3_4b": QWEN3_4B}
ALL = [(name, variant) for name in MODELS for variant in (None, *presets.read(CONFIGS / f"{name}.yaml").variants)]


def preset(name: str, *variants: str, overrides=()):
    return load(CONFIGS / f"{name}.yaml", overrides, variants=variants)


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_preset_lies_over_what_it_extends_section_by_section(tmp_path):
    (tmp_path / "below").mkdir()
    written(tmp_path / "below", base="extends: ground.yaml\ntrain: {steps: 7, lr: 0.5}\nseed: 3\n")
    written(tmp_path / "below", ground="train: {steps: 1, weight_decay: 0.25}\nevaluation: {ks: [1, 2]}\n")
    written(tmp_path, top="extends: below/base.yaml\ntrain: {lr: 0.125}\nevaluation: {ks: [4]}\n")
    found = load(tmp_path / "top.yaml")
    assert (found.train.steps, found.train.lr, found.train.weight_decay, found.seed) == (7, 0.125, 0.25, 3)
    assert found.evaluation.ks == (4,)


VARIANTS = """
variants:
  slow: {train: {steps: 9, lr: 0.5}}
  plain: {method: {name: grpo}}
"""


def test_variants_are_merged_in_the_files_order_whatever_was_typed_and_overrides_win(tmp_path):
    written(tmp_path, base="train: {steps: 2}\nmethod: {name: aepo, t_high: 1.3, clip_low: 0.1}" + VARIANTS)
    written(tmp_path, top="extends: base.yaml\nvariants: {fast: {train: {lr: 0.25}}, slow: {seed: 5}}\n")
    for typed in itertools.permutations(["fast", "slow"]):
        found = load(tmp_path / "top.yaml", variants=typed)
        # slow stands first, in the base; the file on top adds to it.
        assert (found.train.steps, found.train.lr, found.seed) == (9, 0.25, 5)
    assert load(tmp_path / "top.yaml").train.steps == 2
    assert load(tmp_path / "top.yaml", ["train.steps=3"], variants=["slow"]).train.steps == 3
    # Another method keeps the options that it knows.
    method = load(tmp_path / "top.yaml", variants=["plain"]).method
    assert method.name == "grpo" and method.model_extra == {"clip_low": 0.1}


def test_the_resolved_settings_hold_the_effect_of_a_variant_and_read_back(tmp_path):
    chosen = preset("aepo_qwen3_4b", "official", "dcpo")
    (tmp_path / "settings.yaml").write_text(chosen.dump())
    assert load(tmp_path / "settings.yaml") == chosen
    assert "variants" not in chosen.dump() and "extends" not in chosen.dump()


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (
            {"top": "extends: gone.yaml\n"},
            r"extends: gone\.yaml: no such file or preset.*; files beside it: .*top\.yaml",
        ),
        ({"top": "extends: top.yaml\n"}, r"in a circle: top\.yaml -> top\.yaml"),
        (
            {"top": "extends: a.yaml\n", "a": "extends: b.yaml\n", "b": "extends: a.yaml\n"},
            r"in a circle: a\.yaml -> b\.yaml -> a\.yaml; take one extends out",
        ),
        ({"top": "extends: [a.yaml]\n"}, r"extends must be the path of one file, got \['a\.yaml'\]"),
        ({"top": "extends: a.yaml\n", "a": "- 1\n"}, "extends: a.yaml: must hold sections"),
        ({"top": "extends: a.yaml\n", "a": "b: [\n"}, "extends: a.yaml: not readable as YAML"),
        ({"top": "variants: [a]\n"}, r"variants must map names to sections.*\['a'\]"),
        ({"top": "variants: {a: 3}\n"}, "variants must map names to sections"),
        ({"top": "variants: {a: {extends: b.yaml}}\n"}, "variant 'a' cannot hold extends"),
        ({"top": "extends: a.yaml\n", "a": "train: {stepz: 1}\n"}, "train.stepz: unknown field; did you mean 'steps'"),
    ],
)
def test_a_preset_that_cannot_be_is_named_with_the_cure(tmp_path, files, named):
    written(tmp_path, **files)
    with pytest.raises(SettingsError, match=named):
        load(tmp_path / "top.yaml")


def test_an_unknown_variant_is_named_with_the_nearest(tmp_path):
    with pytest.raises(SettingsError, match=r"variant 'oficial', did you mean 'official'.*has: official, improved"):
        preset("aepo_qwen3_4b", "oficial")
    with pytest.raises(SettingsError, match=r"unknown variant 'x'\. The preset has: none"):
        load(None, variants=["x"])


def test_the_command_line_takes_variants_before_fields():
    typed = ["--config", str(CONFIGS / "aepo_qwen3_4b.yaml"), "--variant", "official, grpo", "--method.dual_clip=4"]
    assert parse(typed).settings == preset("aepo_qwen3_4b", "grpo", "official", overrides=["method.dual_clip=4"])


def test_without_arguments_the_presets_are_listed_where_there_is_no_default():
    for typed in ([], ["--local_rank=0"]):
        with pytest.raises(SettingsError) as said:
            parse(typed, bare=False)
        for name in MODELS:
            assert re.search(rf"--config {name}\n +AEPO on Qwen\S+ and DAPO", str(said.value))
        assert str(said.value).count("--variant NAME[,NAME...]: official, improved, grpo, entropy_reg") == 3
        assert "demo_cpu\n      A tiny Qwen3" in str(said.value) and "common" not in str(said.value)
    assert parse([], default_config=str(CONFIGS / "demo_cpu.yaml"), bare=False).settings.train.steps == 450
    assert parse(["--seed=4"], bare=False).settings.seed == 4


def test_the_command_without_arguments_lists_the_presets_on_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert train.main(["--local_rank=0"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: name a preset") and all(f"--config {name}\n" in said for name in MODELS)


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_every_preset_and_variant_loads_and_builds_its_method(name, variant):
    chosen = preset(name, *([variant] if variant else []))
    method = chosen.method.build()
    named = {"official": "aepo", "improved": "aepo_reach", "long": "aepo", None: "aepo"}
    assert method.name == named.get(variant, variant)
    assert method.surrogate.clip_low == method.surrogate.clip_high == 0.2
    assert (chosen.train.prompts_per_step, chosen.rollout.group_size, chosen.train.lr) == (512, 8, 1e-6)
    assert chosen.train.prompts_per_step // chosen.train.minibatches == 128


def test_each_methods_variant_goes_with_the_authors_choices_and_with_ours():
    first, second, *methods = presets.read(CONFIGS / "aepo_qwen3_4b.yaml").variants
    assert (first, second) == ("official", "improved")
    for choices, name in itertools.product((first, second), methods):
        together = preset("aepo_qwen3_4b", choices, name)
        assert together.method.build().name == name and together == preset("aepo_qwen3_4b", name, choices)


def test_the_paper_the_authors_code_and_ours_differ_in_what_they_say():
    paper, official, ours = (preset("aepo_qwen2.5_math_7b", *v) for v in ((), ("official",), ("improved",)))
    method = paper.method.build()
    assert (method.controller.t_low, method.controller.t_high) == (0.8, 1.2)
    assert (method.tempered.cap_up, method.tempered.cap_down, method.tempered.keep) == (60, 30, by_reward)
    assert method.reduction is sequence_mean and method.tempered.normalizer == "all"
    method = official.method.build()
    assert (method.tempered.normalizer, method.tempered.keep) == ("replace", by_advantage)
    assert (method.tempered.cap_up, method.tempered.cap_down, method.tempered.prompt_fraction) == (60, 30, 0.25)
    assert method.reduction is token_mean and method.surrogate.dual_clip == 3.0
    assert (official.controller.sees, official.controller.estimator) == ("previous", "sampled_nll")
    assert (paper.data.end_tokens, official.data.end_tokens) == ("turn", "model")
    assert (official.rollout.top_p, official.rollout.corrects, paper.rollout.top_p) == (0.99, False, 1.0)
    assert official.reward.truncated == "graded" and official.data.template == "chat"
    assert official.data.instruction.startswith(" You FIRST think") and official.data.instruction.endswith(r"\boxed{}.")
    method = ours.method.build()
    default = zoo.build("aepo_reach")
    assert (method.controller, method.tempered) == (default.controller, default.tempered)
    assert ours.controller.estimator == "exact" and ours.reward.truncated == "zero"


def test_prompt_and_response_fit_the_positions_of_the_math_model():
    # max_position_embeddings of Qwen2.5-Math-7B.
    chosen = preset("aepo_qwen2.5_math_7b")
    assert chosen.data.max_prompt_tokens + chosen.rollout.max_response_tokens == 4096


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_the_doctor_finds_room_for_every_preset_on_eight_gpus_of_40_gb(name, variant, tmp_path, capsys):
    MODELS[name].save_pretrained(tmp_path)
    code = doctor.main(
        [
            f"--config={CONFIGS / name}.yaml", "--gpus=8", "--gpu-memory-gib=39.4", f"--model-config={tmp_path}",
            *([f"--variant={variant}"] if variant else []),
        ]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0 and not said.err, said.err
    assert "16-bit weights" in said.out and "gradient checkpointing" in said.out and "note:" not in said.out
