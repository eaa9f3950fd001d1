"""The choice of the number of threads, with steps whose time depends on it."""

from __future__ import annotations

from itertools import pairwise

from delineate.training.threads import AGAIN_S, LONGEST_S, STRANGE, TRIAL, WayChoice, fastest


class Machine:
    """A clock that goes on by the time of a step in the way in use."""

    def __init__(self, **seconds: float):
        self.seconds, self.time, self.way, self.used = seconds, 0.0, "", []
        self.choice = WayChoice(list(seconds), self.use, lambda: self.time)

    def use(self, way: str) -> None:
        self.way = way
        self.used.append(way)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.time += self.seconds[self.way]
            self.choice.step_ended()


def test_the_fastest_way_is_used_until_the_load_changes():
    machine = Machine(shared=1.4, alone=0.6)
    assert machine.way == "shared"
    machine.steps(2 * TRIAL)
    assert machine.way == "alone"
    machine.steps(20)
    assert machine.way == "alone"
    # The other program ends, which this way does not show: found at the next trial.
    machine.seconds = {"shared": 0.2, "alone": 0.5}
    machine.steps(int(AGAIN_S / 0.5) + 2 * TRIAL + 1)
    assert machine.way == "shared"
    # It begins again: steps take much longer, and the ways are tried soon.
    machine.seconds = {"shared": 1.4, "alone": 0.6}
    machine.steps(STRANGE + 2 * TRIAL)
    assert machine.way == "alone"


def test_faster_steps_begin_a_trial_too():
    machine = Machine(shared=1.4, alone=0.6)
    machine.steps(2 * TRIAL)
    machine.seconds = {"shared": 0.2, "alone": 0.3}
    machine.steps(STRANGE + 2 * TRIAL)
    assert machine.way == "shared"


def test_a_single_strange_step_begins_no_trial():
    machine = Machine(shared=0.2, alone=0.25)
    machine.steps(2 * TRIAL)
    machine.time += 20
    machine.steps(10)
    assert machine.used == ["shared", "alone", "shared"]


def test_a_way_that_is_much_slower_is_left_after_two_steps():
    machine = Machine(shared=0.2, apart=0.25, alone=5.0)
    machine.steps(2 * TRIAL)
    assert machine.way == "alone"
    machine.steps(1)
    assert machine.way == "alone"
    machine.steps(1)
    assert machine.way == "shared"


def test_trials_that_change_nothing_become_rare():
    machine = Machine(shared=0.2, alone=0.25)
    trials = []
    while machine.time < 4 * LONGEST_S:
        before = len(machine.used)
        machine.steps(1)
        if machine.used[before:] == ["alone"]:
            trials.append(machine.time)
    gaps = [round(b - a) for a, b in pairwise(trials)]
    assert gaps[0] in range(60, 130) and gaps == sorted(gaps)
    assert LONGEST_S - 5 < gaps[-1] < LONGEST_S + 5


def test_validation_is_no_slow_step():
    machine = Machine(shared=0.2, alone=0.3)
    machine.steps(2 * TRIAL)
    for _ in range(STRANGE):
        machine.time += 20
        machine.choice.paused()
        machine.steps(1)
    assert machine.used == ["shared", "alone", "shared"]


def test_a_single_way_is_used_without_a_trial():
    machine = Machine(alone=0.3)
    machine.steps(10)
    assert machine.used == ["alone"]


def test_the_fastest_number_is_used_for_a_while():
    used = []
    with fastest(lambda: {2: 1.4, 1: 0.6}[used[-1]], used.append, 2):
        assert used == [2, 1, 1]
    assert used[-1] == 2
    with fastest(lambda: 1.0, used.append, 1):
        assert used[-1] == 1
