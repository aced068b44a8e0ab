"""How long it will take: what is said with no history, little, and a restless one."""

from __future__ import annotations

import math
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from apps.maps.planning.prediction import KEPT_RUNS, History, Prediction, combine

durations = st.integers(min_value=0, max_value=86_400_000)


def history_of(*durations_ms: int) -> History:
    return reduce(History.after, durations_ms, History())


def predict(*durations_ms: int) -> Prediction:
    prediction = history_of(*durations_ms).predict()
    assert prediction is not None
    return prediction


def test_without_a_history_nothing_is_said() -> None:
    assert History().predict() is None
    assert combine([]) is None


def test_one_run_is_a_history_with_an_allowance() -> None:
    assert predict(1000).p50_ms == 1000
    assert 1100 < predict(1000).p90_ms < 1500
    assert predict(1000).runs == 1


def test_one_outlier_does_not_move_the_middle() -> None:
    assert predict(*[1000] * 10, 60_000).p50_ms == 1000


def test_a_lasting_change_is_followed_within_a_few_runs() -> None:
    assert predict(*[1000] * 40, *[3000] * 5).p50_ms == 3000


def test_what_varies_more_gets_more_room() -> None:
    calm, wild = predict(*[1000, 1010] * 20), predict(*[1000, 2500] * 20)
    assert calm.p90_ms < 1100
    assert wild.p90_ms >= 2500


def test_two_humps_are_both_within_the_high_value() -> None:
    assert predict(*[1000, 1000, 3000] * 12).p90_ms >= 2900


@given(st.lists(durations, min_size=1, max_size=120))
def test_every_history_has_a_sensible_prediction(runs: list[int]) -> None:
    prediction = predict(*runs)
    lowest, highest = max(1, min(runs)), max(1, *runs)
    assert lowest - 1 <= prediction.p50_ms <= highest + 1
    assert prediction.p50_ms <= prediction.p90_ms
    assert prediction.runs == min(len(runs), KEPT_RUNS)


@given(st.lists(durations, min_size=1, max_size=60), st.sampled_from([2, 10, 1000]))
def test_the_unit_does_not_matter(runs: list[int], factor: int) -> None:
    plain, scaled = predict(*[run + 1 for run in runs]), predict(*[(run + 1) * factor for run in runs])
    assert math.isclose(scaled.p50_ms, plain.p50_ms * factor, rel_tol=1e-6, abs_tol=factor)


@given(
    st.lists(st.builds(Prediction, st.integers(1, 10_000), st.integers(10_000, 20_000), st.integers(1, 50)), min_size=1)
)
def test_a_chain_is_no_surer_than_its_steps_and_no_wider_than_their_sum(path: list[Prediction]) -> None:
    whole = combine(path)
    assert whole is not None
    assert whole.p50_ms == sum(step.p50_ms for step in path)
    widest = max(step.p90_ms - step.p50_ms for step in path)
    assert whole.p50_ms + widest - 1 <= whole.p90_ms <= sum(step.p90_ms for step in path) + 1
