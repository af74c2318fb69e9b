"""Every recipe is a whole configuration, and its saved form is the same one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llavakit.train.overrides import recipe_config
from llavakit.train.recipes import RECIPES, SEQUENCES

GIVEN = {name: [] if name.startswith("pocket") else ["start=pocket", "data=my.json"] for name in RECIPES}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_its_file(name: str, tmp_path: Path) -> None:
    config = recipe_config(name, GIVEN[name])
    saved = tmp_path / "config.yaml"
    saved.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert recipe_config(str(saved), []) == config


def test_each_run_has_a_folder_of_its_own() -> None:
    folders = [recipe_config(name, GIVEN[name]).out for name in RECIPES]
    assert len(set(folders)) == len(folders)


def test_the_papers_settings() -> None:
    """LLaVA-1.5, scripts/v1_5/pretrain.sh and finetune.sh of the original."""
    stages = [recipe_config(f"llava-1.5-{stage}", ["start=pocket", "data=my.json"]) for stage in ("align", "instruct")]
    assert [config.learning_rate for config in stages] == [1e-3, 2e-5]
    assert [config.batch_size for config in stages] == [256, 128]
    assert [config.resize_mode for config in stages] == ["square", "pad"]
    assert [config.fresh for config in stages] == [("projector",), ()]
    for config in stages:
        assert (config.warmup, config.min_rate, config.weight_decay, config.epochs) == (0.03, 0, 0, 1)
        assert (config.optimizer, config.betas, config.max_length) == ("adamw", (0.9, 0.999), 2048)
        assert (config.vision_rate, config.clip_norm, config.seed) == (0, None, 42)


def test_the_pocket_model_goes_through_all_stages() -> None:
    stages = [recipe_config(name, []).stage for name in SEQUENCES["pocket"]]
    assert stages == ["clip", "language", "align", "instruct", "instruct"]
