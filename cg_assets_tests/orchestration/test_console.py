"""Lines of progress."""

from cg_assets.orchestration import console


def test_the_time_left_follows_the_pace_of_recent_pieces(monkeypatch):
    """The first piece waits a minute for a compiler, five take 2 s each, the others 10 s."""
    now, lines = 0.0, []
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    report = console.log_progress(lines.append)
    left = {}
    for done, seconds in enumerate([60, *[2] * 5, *[10] * 24], 1):
        now += seconds
        report(done, 40, "pieces")
        if lines:
            left[done] = lines.pop()
    assert left[4].endswith("4 of 40 pieces, 72 s left")
    assert left[30].endswith("30 of 40 pieces, 100 s left")


def test_the_next_task_of_a_step_has_a_time_of_its_own(monkeypatch):
    now, lines = 0.0, []
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    report = console.log_progress(lines.append)
    for done in (1, 2):
        now += 100
        report(done, 2, "epochs")
    for done in (1, 2):
        now += 6
        report(done, 4, "frames")
    assert [line.rpartition(" of ")[2] for line in lines[2:]] == ["4 frames, 18 s left", "4 frames, 12 s left"]
