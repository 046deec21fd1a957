"""Sokoban in words and as a list of coordinates."""

import pytest

from leafe_graph.envs.sokoban import SokobanEnv, describe, parse
from leafe_graph.envs.sokoban.coordinates import coordinates
from leafe_graph.errors import ConfigError

LEVEL = "######\n#@ # #\n# $  #\n#   .#\n######"


def test_describe_tells_relations_move_by_move() -> None:
    """What is free around the player, the way to the box, how it can be pushed, and its way to the target."""
    assert (
        describe(parse(LEVEL))
        == "free: down right\nbox: right down\npush: up down left right\ntarget: right right down"
    )


def test_describe_counts_walls_and_boxes_as_not_free() -> None:
    """Walls above and below leave only two ways to push; where nothing is free, none is said."""
    assert describe(parse("#####\n#@$.#\n#####")) == "free: none\nbox: right\npush: left right\ntarget: right"


def test_describe_takes_boxes_nearest_first_and_says_which_are_home() -> None:
    """Each box has its own lines; one that stands on a target is here."""
    text = describe(parse("#######\n#@ * $#\n#    .#\n#     #\n#######"))
    assert text.split("\n") == [
        "free: down right",
        "box: right right",
        "push: left right",
        "target: here",
        "box: right right right right",
        "push: none",
        "target: down",
    ]


def test_coordinates_tell_a_box_on_its_target() -> None:
    """A box on a target has a symbol of its own; the target is told as well, since the player may push it off again."""
    assert coordinates(parse("#####\n#@$.#\n# * #\n#####")) == "P1,1 X1,2 √2,2 O1,3 O2,2 ___ ___"


@pytest.mark.parametrize(
    ("view", "shown"),
    [("grid", "# P _ # _ #"), ("words", "free: down right"), ("coordinates", "P1,1 X2,2 O3,4 __#_ ____ ____")],
)
def test_view_chooses_what_an_observation_shows(view: str, shown: str) -> None:
    """The first observation, and after a step the feedback line before it; "both" shows both."""
    env, both = SokobanEnv(view=view), SokobanEnv(view="both")  # type: ignore[arg-type]
    assert shown in env.reset(options={"level": LEVEL})[0]
    assert (shown in both.reset(options={"level": LEVEL})[0]) == (view != "coordinates")
    assert env.step("right")[0].startswith("moved\n")


def test_unknown_view_is_refused() -> None:
    """The error names what there is."""
    with pytest.raises(ConfigError, match="grid, words, both, coordinates"):
        SokobanEnv(view="smell")  # type: ignore[arg-type]
