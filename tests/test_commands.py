"""The command line: what a person types, reads and pipes."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from cdfss.commands.main import PLACES, cli


def run(*arguments, **how):
    return CliRunner().invoke(cli, list(map(str, arguments)), prog_name="cdfss", **how)


@pytest.mark.parametrize("name", PLACES)
def test_every_command_says_what_it_does(name):
    done = run(name, "--help")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) > 4
    assert name in run("--help").stdout


def test_help_comes_before_anything_slow_is_imported():
    code = (
        "import sys; from cdfss.commands.main import main; main(['--help'])\n"
        "sys.exit(', '.join({'torch', 'numpy', 'pandas', 'pydantic', 'snakemake'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "check" in done.stdout


def test_a_mistake_is_a_line_on_stderr_and_no_traceback(tmp_path):
    done = run("check", tmp_path / "none.yaml")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: configuration: cannot read")


def test_a_command_that_is_not_there_is_answered_with_the_nearest():
    done = run("chek")
    assert done.exit_code == 2
    assert "did you mean check?" in done.stderr


def test_json_is_for_programs():
    assert json.loads(run("datasets", "--json").stdout)["pascal"]["licence"]
    done = run("check", "config/demo.yaml", "--json")
    assert json.loads(done.stdout) == {"file": "config/demo.yaml", "problems": []}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_for_each_shell(shell):
    assert "_CDFSS_COMPLETE" in run("completion", shell).stdout


def test_completion_knows_the_commands():
    environment = {"_CDFSS_COMPLETE": "bash_complete", "COMP_WORDS": "cdfss check", "COMP_CWORD": "1"}
    done = run(env=environment)
    assert {"plain,check", "plain,check-method"} <= set(done.stdout.splitlines())


def test_ctrl_c_ends_in_a_line(monkeypatch):
    from cdfss.data import places

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(places, "registry", interrupted)
    done = run("datasets")
    assert (done.exit_code, done.stderr) == (130, "stopped\n")
