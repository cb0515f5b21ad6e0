"""A file is the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import os
import stat

from tsl_latentgnn._files import is_same_file, replacing

import pytest


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.csv"
    path.write_text("old")
    return path


def test_the_old_file_is_there_until_the_end(old):
    with replacing(old) as unfinished:
        unfinished.write_text("new")
        assert old.read_text() == "old"
        assert unfinished.suffix == ".csv"
    assert old.read_text() == "new"
    assert os.listdir(old.parent) == ["old.csv"]


@pytest.mark.parametrize("how", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_old_file_stays_where_the_writing_fails(old, how):
    def write_half():
        with replacing(old) as unfinished:
            unfinished.write_text("half")
            raise how

    with pytest.raises(how):
        write_half()
    assert old.read_text() == "old"
    assert os.listdir(old.parent) == ["old.csv"]


def test_what_is_never_written_replaces_nothing(old):
    with pytest.raises(FileNotFoundError), replacing(old):
        pass
    assert old.read_text() == "old"


def test_permissions_and_links_are_kept(old):
    old.chmod(0o640)
    link = old.with_name("link.csv")
    link.symlink_to("old.csv")
    with replacing(link) as unfinished:
        unfinished.write_text("new")
    assert link.is_symlink()
    assert old.read_text() == "new"
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    with replacing(tmp_path / "new") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_fixed_name_is_written_over(old):
    old.with_name("old.csv.tmp").write_text("left by a killed process")
    with replacing(old, "old.csv.tmp") as unfinished:
        assert unfinished.name == "old.csv.tmp"
        unfinished.write_text("new")
    assert os.listdir(old.parent) == ["old.csv"]


def test_what_is_no_file_is_written_to():
    with replacing(os.devnull) as unfinished:
        assert str(unfinished) == os.devnull


def test_an_error_names_the_path_that_was_given(tmp_path):
    path = tmp_path / "absent" / "new.csv"
    with pytest.raises(FileNotFoundError) as error, replacing(path):
        pass
    assert error.value.filename == str(path)


def test_the_same_file(old):
    link = old.with_name("link")
    link.hardlink_to(old)
    assert is_same_file(old, link)
    assert not is_same_file(old, old.parent)
    assert not is_same_file(old, old.with_name("absent"))
    with old.open() as file:
        assert is_same_file(file.fileno(), link)
