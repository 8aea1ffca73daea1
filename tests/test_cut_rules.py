"""Rules of a selection as one writes them, and a flow that adds up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xplabels.core.errors import InputError
from xplabels.cuts.flow import CutFlow, count
from xplabels.cuts.rules import load_rules, parse_rule


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gaia.ruwe", "is not a rule"),
        ("gaia.ruwe <= many", "'many' is not a number"),
        ("gaia.ruwe <= nan", "is not finite"),
        ("apogee.starflag lacks LOW_SNRR", "has no bit 'LOW_SNRR'"),
        ("gaia.flag lacks LOW", "has no bit 'LOW'"),
        ("labels has a-ge", "'a-ge' cannot be the name of a label"),
        ("photometry has J", "photometry has no 'J'"),
    ],
)
def test_a_wrong_rule_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_rule("x", text)


@given(
    st.lists(st.floats(-5, 5) | st.just(np.nan), min_size=1, max_size=20),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.floats(-5, 5),
    st.booleans(),
)
def test_comparisons(values: list[float], relation: str, bound: float, missing: bool) -> None:
    rule = parse_rule("x", f"gaia.ruwe {relation} {bound!r}" + " or missing" * missing)
    obvious: dict[str, Callable[[float], bool]] = {
        "<": lambda v: v < bound, "<=": lambda v: v <= bound, ">": lambda v: v > bound,
        ">=": lambda v: v >= bound, "==": lambda v: v == bound, "!=": lambda v: v != bound,
    }  # fmt: skip
    expected = [missing if np.isnan(v) else obvious[relation](v) for v in values]
    assert rule.condition.passes(np.array(values)).tolist() == expected


@given(
    st.lists(st.integers(-1, 2**45), min_size=1),
    st.sets(st.integers(0, 44), min_size=1),
    st.booleans(),
)
def test_bits(values: list[int], bits: set[int], missing: bool) -> None:
    listed = ", ".join(map(str, bits))
    rule = parse_rule("x", f"mine.flag lacks {listed}" + " or missing" * missing)
    expected = [missing if v < 0 else not any(v >> b & 1 for b in bits) for v in values]
    assert rule.condition.passes(np.array(values, np.int64)).tolist() == expected


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.lists(
            st.tuples(*2 * [st.lists(st.booleans(), min_size=n, max_size=n)]),
            min_size=1,
            max_size=5,
        )
    )
)
def test_the_flow_adds_up(rules: list[tuple[list[bool], list[bool]]]) -> None:
    n = len(rules[0][0])
    results = [("r", "text", (np.array(a), np.array(p))) for a, p in rules]
    keep, flow = count(n, [*results, ("absent", "text", None)])
    obvious = [all(p[k] or not a[k] for a, p in rules) for k in range(n)]
    assert keep.tolist() == obvious
    assert flow.after == sum(obvious)
    assert [cut.alone for cut in flow.cuts[:-1]] == [
        sum(a[k] and not p[k] for k in range(n)) for a, p in rules
    ]
    assert flow.cuts[-1].applies is None
    together: CutFlow = flow + flow
    assert together.after == 2 * flow.after
    assert together.to_dict()["cuts"][-1]["remaining"] == together.after


def test_rules_are_changed_added_and_left_out() -> None:
    default = load_rules()
    assert [rule.name for rule in default] == [
        "colour_excess", "ruwe", "aspcap", "star", "extratarg", "labels",
    ]  # fmt: skip
    changed = load_rules(None, ["ruwe=gaia.ruwe <= 1.2", "new=labels has teff"], ["star"])
    assert [rule.name for rule in changed] == [
        "colour_excess", "ruwe", "aspcap", "extratarg", "labels", "new",
    ]  # fmt: skip
    assert changed[1].text == "gaia.ruwe <= 1.2"
    with pytest.raises(InputError, match="no rule 'sttar' to leave out"):
        load_rules(None, (), ["sttar"])
    with pytest.raises(InputError, match="is not a rule"):
        load_rules(None, ["gaia.ruwe <= 1.2"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[rules]\na = 'gaia.ruwe < 2'\n[more]\n", "unknown key 'more'"),
        ("a = 1\n", "unknown key 'a'"),
        ("[rules]\na = 1\n", "is not text"),
        ("[rules\n", "is not a whole TOML file"),
        ("", r"no table \[rules\]"),
    ],
)
def test_a_wrong_file_of_rules_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(InputError, match=said):
        load_rules(tmp_path / "rules.toml")
