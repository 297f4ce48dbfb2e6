"""Compositions that nothing is remembered for, as a user has them: those of tests are the same."""

import pytest
from omegaconf import OmegaConf

from mmrnn.cli.main import main
from mmrnn.config.compose import compose, compose_with_choices
from mmrnn.config.error import ConfigError

TINY = "model=visualrwkv6_tiny"
WORDS = (TINY, "connector=mlp", "connector.depth=3", "data=few_shot", "+schedule@stage.instruct.schedule=linear")
CARD = "_target_: mmrnn.connectors.MLP\ndepth: {}\n"


@pytest.fixture(scope="module")
def remembered(hydra_reads_once):
    """Of the composition that tests share: text, choices, whether keys can be added, and the sentence of a fault."""
    return described()


def described():
    cfg, choices = compose_with_choices(*WORDS)
    with pytest.raises(ConfigError) as fault:
        compose(TINY, "connector=mpl")
    return OmegaConf.to_yaml(cfg), choices, OmegaConf.is_struct(cfg), str(fault.value)


def test_compose(remembered, hydra_reads_again):
    assert described() == remembered
    cfg = compose(*WORDS)
    cfg.connector.depth = 9
    assert described() == remembered, "a composition that is changed changes no other one"


def test_the_command_line(capsys, request):
    assert main(["show", *WORDS]) == 0
    first = capsys.readouterr().out
    request.getfixturevalue("hydra_reads_again")
    assert main(["show", *WORDS]) == 0
    assert capsys.readouterr().out == first
    assert main(["show", TINY, "connector=mpl"]) == 2
    assert "there is no card connector/mpl; did you mean 'mlp'?" in capsys.readouterr().err


def test_a_folder_of_cards(tmp_path, capsys, hydra_reads_again):
    (tmp_path / "connector").mkdir()
    card, found = tmp_path / "connector" / "mine.yaml", []
    for depth in (2, 3):
        card.write_text(CARD.format(depth))
        assert main(["show", TINY, "connector=mine", "--config-dir", str(tmp_path)]) == 0
        found.append(capsys.readouterr().out)
        assert compose(TINY, "connector=mine", dirs=[tmp_path]).connector.depth == depth
        with pytest.raises(ConfigError, match="there is no card connector/mine"):
            compose(TINY, "connector=mine")
    assert found[0] != found[1]
