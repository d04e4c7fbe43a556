"""What the queue expects of past jobs; the rest by its callers."""

from __future__ import annotations

from demo import jobs
from demo.jobs import PastJobs

KIND = ("comparison", "base", "jfk")


def test_a_wait_is_expected_from_the_jobs_most_like_it() -> None:
    past = PastJobs()
    assert past.estimate(KIND) is None
    for seconds in (10.0, 12.0, 500.0):
        past.note(("comparison", "base", "columbia"), seconds)
    assert past.estimate(KIND) == 12.0
    past.note(KIND, 1.0)
    assert past.estimate(KIND) == 1.0
    assert past.estimate(("comparison", "tiny", "jfk")) is None
    assert past.estimate(("layers", "base", "jfk")) is None


def test_what_past_jobs_took_is_kept_of_so_many_kinds() -> None:
    past = PastJobs()
    for number in range(1000):
        past.note(("comparison", f"model {number}", "jfk"), 1.0)
    assert len(past._seconds) == jobs.KINDS_REMEMBERED
