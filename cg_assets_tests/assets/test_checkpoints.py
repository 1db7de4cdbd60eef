"""Checkpoints of unfinished trainings."""

from cg_assets.assets.training import checkpoint_path


def test_resume_keeps_the_checkpoints_of_the_committee(tmp_path):
    path = checkpoint_path(tmp_path, "data", 1)
    member = path.with_name(f"{path.stem}-1{path.suffix}")
    member.write_bytes(b"unfinished")
    assert checkpoint_path(tmp_path, "data", 1) == path
    assert member.exists()
    other = checkpoint_path(tmp_path, "other data", 1)
    assert other != path
    assert not member.exists()
