"""The choice of the number of threads, with steps whose time depends on it."""

from __future__ import annotations

from itertools import pairwise

from delineate.training.threads import AGAIN_S, LONGEST_S, STRANGE, TRIAL, ThreadChoice, fastest


class Machine:
    """A clock that goes on by the time of a step with the threads in use."""

    def __init__(self, **seconds: float):
        self.seconds = {int(name[1:]): value for name, value in seconds.items()}
        self.time, self.threads, self.used = 0.0, 0, []
        self.choice = ThreadChoice(list(self.seconds), self.use, lambda: self.time)

    def use(self, threads: int) -> None:
        self.threads = threads
        self.used.append(threads)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.time += self.seconds[self.threads]
            self.choice.step_ended()


def test_the_fastest_number_is_used_until_the_load_changes():
    machine = Machine(t2=1.4, t1=0.6)
    assert machine.threads == 2
    machine.steps(2 * TRIAL)
    assert machine.threads == 1
    machine.steps(20)
    assert machine.threads == 1
    # The other program ends, which one thread does not show: found at the next trial.
    machine.seconds = {2: 0.2, 1: 0.5}
    machine.steps(int(AGAIN_S / 0.5) + 2 * TRIAL + 1)
    assert machine.threads == 2
    # It begins again: steps take much longer, and the numbers are tried soon.
    machine.seconds = {2: 1.4, 1: 0.6}
    machine.steps(STRANGE + 2 * TRIAL)
    assert machine.threads == 1


def test_faster_steps_begin_a_trial_too():
    machine = Machine(t2=1.4, t1=0.6)
    machine.steps(2 * TRIAL)
    machine.seconds = {2: 0.2, 1: 0.3}
    machine.steps(STRANGE + 2 * TRIAL)
    assert machine.threads == 2


def test_a_single_strange_step_begins_no_trial():
    machine = Machine(t2=0.2, t1=0.25)
    machine.steps(2 * TRIAL)
    machine.time += 20
    machine.steps(10)
    assert machine.used == [2, 1, 2]


def test_a_number_that_is_much_slower_is_left_after_two_steps():
    machine = Machine(t4=0.2, t2=0.25, t1=5.0)
    machine.steps(2 * TRIAL)
    assert machine.threads == 1
    machine.steps(1)
    assert machine.threads == 1
    machine.steps(1)
    assert machine.threads == 4


def test_trials_that_change_nothing_become_rare():
    machine = Machine(t2=0.2, t1=0.25)
    trials = []
    while machine.time < 4 * LONGEST_S:
        before = len(machine.used)
        machine.steps(1)
        if machine.used[before:] == [1]:
            trials.append(machine.time)
    gaps = [round(b - a) for a, b in pairwise(trials)]
    assert gaps[0] in range(60, 130) and gaps == sorted(gaps)
    assert LONGEST_S - 5 < gaps[-1] < LONGEST_S + 5


def test_validation_is_no_slow_step():
    machine = Machine(t2=0.2, t1=0.3)
    machine.steps(2 * TRIAL)
    for _ in range(STRANGE):
        machine.time += 20
        machine.choice.paused()
        machine.steps(1)
    assert machine.used == [2, 1, 2]


def test_a_single_number_is_used_without_a_trial():
    machine = Machine(t1=0.3)
    machine.steps(10)
    assert machine.used == [1]


def test_the_fastest_number_is_used_for_a_while():
    used = []
    with fastest(lambda: {2: 1.4, 1: 0.6}[used[-1]], used.append, 2):
        assert used == [2, 1, 1]
    assert used[-1] == 2
    with fastest(lambda: 1.0, used.append, 1):
        assert used[-1] == 1
