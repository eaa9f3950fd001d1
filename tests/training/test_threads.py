"""The choice of the number of threads, with steps whose time depends on it."""

from __future__ import annotations

from delineate.training.threads import AGAIN_S, TRIAL, ThreadChoice, counts_to_try


class Machine:
    """A clock that goes on by the time of a step with the threads in use."""

    def __init__(self, **seconds: float):
        self.seconds = {int(name[1:]): value for name, value in seconds.items()}
        self.time, self.threads = 0.0, 0
        self.choice = ThreadChoice(sorted(self.seconds, reverse=True), self.use, lambda: self.time)

    def use(self, threads: int) -> None:
        self.threads = threads

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
    # The other program ends: found at the next trial.
    machine.seconds = {2: 0.2, 1: 0.3}
    machine.steps(int(AGAIN_S / 0.3) + 2 * TRIAL + 1)
    assert machine.threads == 2
    # It begins again: steps take much longer, and are tried at once.
    machine.seconds = {2: 1.4, 1: 0.6}
    machine.steps(1 + 2 * TRIAL)
    assert machine.threads == 1


def test_validation_is_no_slow_step():
    machine = Machine(t2=0.2, t1=0.3)
    machine.steps(2 * TRIAL)
    machine.time += 20
    machine.choice.paused()
    machine.steps(1)
    assert machine.threads == 2


def test_a_single_number_is_left_alone():
    machine = Machine(t1=0.3)
    machine.threads = 1
    machine.steps(10)
    assert machine.threads == 1 and counts_to_try(1) == [1]
