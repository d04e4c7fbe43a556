"""What the queue expects of past jobs, and results saved for a reload; the rest by its callers."""

from __future__ import annotations

from demo import jobs
from demo.jobs import PastJobs, Saved, SavedResults

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


def test_a_visit_finds_its_own_results_for_an_hour_and_what_is_kept_is_bounded() -> None:
    saved, mine = SavedResults(), Saved({"model": "base"}, None, {"layers": "drawn"})
    saved.save("mine", "comparison", mine)
    saved.save("", "comparison", mine)
    assert saved.find("mine", "comparison") is mine and saved.find("mine", "faults") is None
    assert saved.find("yours", "comparison") is None and saved.find("", "comparison") is None
    saved.forget(3600)
    assert saved.find("mine", "comparison")
    saved.forget(0)
    assert saved.find("mine", "comparison") is None
    past = PastJobs()
    for number in range(1000):
        past.note(("comparison", f"model {number}", "jfk"), 1.0)
        saved.save(f"visit {number}", "comparison", mine)
    assert len(past._seconds) == jobs.KINDS_REMEMBERED
    assert saved.find("visit 0", "comparison") is None
    assert saved.find("visit 999", "comparison") is mine
