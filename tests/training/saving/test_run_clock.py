"""The time of a run is that of all attempts at it, killed ones included."""

import time

import pytest

from mmrnn.training.saving.run_clock import CLOCK, RunClock


def test_attempts_are_summed(tmp_path):
    now = [100.0]

    def attempt(**knobs):
        return RunClock(tmp_path, clock=lambda: now[0], **knobs)

    def fail():
        with attempt():
            now[0] += 7
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    now[0] += 50  # nothing runs
    with attempt() as clock:
        now[0] += 3
        assert clock.seconds == 10
    assert not (tmp_path / CLOCK).exists(), "the result has it"
    (tmp_path / CLOCK).write_text("12.5\n")
    assert attempt().seconds == 12.5
    assert attempt(anew=True).seconds == 0


def test_a_killed_attempt_counts_up_to_the_last_time_that_it_wrote(tmp_path):
    with RunClock(tmp_path, every=0.01):
        end = time.monotonic() + 60
        while float((tmp_path / CLOCK).read_text()) < 0.05:
            assert time.monotonic() < end
            time.sleep(0.005)
        assert RunClock(tmp_path).seconds >= 0.05


def test_other_processes_of_a_run_write_nothing(tmp_path):
    with RunClock(tmp_path, writes=False) as clock:
        assert clock.seconds >= 0
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("text", ["", "many", "-1", "1e5", "1.2.3", "٣"])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / CLOCK).write_text(text)
    with pytest.raises(ValueError, match=r"seconds\.txt is damaged: expected the seconds .*; delete it"):
        RunClock(tmp_path)
