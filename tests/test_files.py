"""Folders that are made as a whole."""

import subprocess
import sys

import pytest

from cdfss.errors import CdfssError
from cdfss.running import files

HOLD = """
import sys, time
from cdfss.running.files import replacing_folder
with replacing_folder(sys.argv[1]) as partial:
    (partial / "piece").write_text("half")
    print("begun", flush=True)
    time.sleep(100)
"""


def test_temporary_folders_of_killed_processes_are_removed_and_those_of_running_ones_are_not(tmp_path):
    def hold(name):
        arguments = [sys.executable, "-c", HOLD, str(tmp_path / name)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "begun\n"
        return process

    def partial(name):
        return list(tmp_path.glob(f"{name}.*.partial"))

    running, killed = hold("prepared-1"), hold("prepared-2")
    killed.kill()
    killed.wait()
    assert partial("prepared-1")
    assert partial("prepared-2")
    with files.replacing_folder(tmp_path / "prepared-3") as mine:  # whatever it is for
        (mine / "piece").write_text("whole")
        assert partial("prepared-2") == []
        with files.replacing_folder(tmp_path / "prepared-4"):
            assert mine.is_dir()
    assert len(partial("prepared-1")) == 1
    running.kill()
    running.wait()
    with pytest.raises(ValueError, match="odd"), files.replacing_folder(tmp_path / "prepared-3") as mine:
        raise ValueError("odd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared-3", "prepared-4"]
    assert (tmp_path / "prepared-3" / "piece").read_text() == "whole"


@pytest.mark.parametrize(("name", "words"), [("folder", "is a folder"), ("file/x", "file is a file")])
def test_a_file_in_the_place_of_a_folder_or_below_a_file_is_refused_in_words(name, words, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(CdfssError, match=words), files.replacing(tmp_path / name):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
