"""What profiles/kubernetes asks a cluster for, as far as that can be known without one.

Snakemake and its plugin are real; the cluster's interface is replaced by one that writes down what it is
asked to run and says of everything that it failed.
"""

import importlib.util
import json
import shutil
import subprocess
import sys

import pytest

from .test_plan import own_data, with_models

PLUGINS = ("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_fs")
pytestmark = [
    pytest.mark.skipif(
        any(importlib.util.find_spec(plugin) is None for plugin in PLUGINS),
        reason="Snakemake's plugins for Kubernetes are not installed (pip install -e .[kubernetes])",
    ),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync, which the plugin fs uses, is missing"),
]
IMAGE = "registry.example.org/me/cdfss:latest"
STAND_IN = """
import json, sys, types
import kubernetes.client, kubernetes.config

class Cluster:
    def create_namespaced_job(self, namespace, body):
        with open("asked.json", "a") as file:
            print(json.dumps(kubernetes.client.ApiClient().sanitize_for_serialization(body)), file=file)

    def read_namespaced_job_status(self, name, namespace):
        return types.SimpleNamespace(status=types.SimpleNamespace(failed=1, succeeded=0))

    def list_namespaced_pod(self, **_):
        return types.SimpleNamespace(items=[])

    def __getattr__(self, name):
        return lambda *_, **__: None

kubernetes.config.load_kube_config = lambda: None
kubernetes.client.CoreV1Api = kubernetes.client.BatchV1Api = Cluster

from snakemake.cli import main
main(sys.argv[1:])
"""


def asked_for(project, target, *arguments):
    """Jobs of Kubernetes, as sent to its interface, that a run up to a target asks for, and its output."""
    path = project.folder / "profiles" / "kubernetes" / "config.yaml"
    text = path.read_text()
    for before, after in (
        ("cdfss:/volume", f"cdfss:{project.folder.parent}"),
        ("/volume/cdfss", str(project.folder)),
    ):
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)
    project.write("stand_in.py", STAND_IN)
    done = subprocess.run(
        [
            *(sys.executable, "stand_in.py", target, "--workflow-profile", "profiles/kubernetes"),
            *("--seconds-between-status-checks", "1", *arguments),
        ],
        cwd=project.folder,
        capture_output=True,
        text=True,
    )
    asked = project.folder / "asked.json"
    assert asked.exists(), done.stdout + done.stderr
    return [json.loads(line) for line in asked.read_text().splitlines()], done.stdout + done.stderr


def test_a_training_asks_for_image_gpu_memory_and_volume_and_for_more_memory_each_time(project):
    own_data(project)
    name = with_models(project)
    # Only what comes next is asked for.
    for file in ("source/trn.parquet", "source/trn.pictures.json", "mine/test.parquet"):
        path = project.folder / "results" / "small" / "index" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    target = "results/small/source/0/checkpoint.safetensors"
    jobs, output = asked_for(project, target, "--rerun-triggers", "mtime", "--configfile", name)
    assert f"Using {IMAGE} for Kubernetes jobs" in output
    assert len(jobs) == 3  # as many as `retries` says
    memory = []
    for job in jobs:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["image"] == IMAGE
        # GPUs have to be limits; memory that is none would not end a job that takes more.
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits["cpu"] == "8000m"
        assert limits["nvidia.com/gpu"] == requests["nvidia.com/gpu"] == "1"
        assert limits["memory"] == requests["memory"]
        memory.append(int(limits["memory"].removesuffix("M")))
        pod = job["spec"]["template"]["spec"]
        assert pod["restartPolicy"] == "Never"  # Snakemake tries again, with more memory
        assert [t["key"] for t in pod["tolerations"]] == ["nvidia.com/gpu"]
        (volume,) = (v for v in pod["volumes"] if "persistentVolumeClaim" in v)
        assert volume["persistentVolumeClaim"]["claimName"] == "cdfss"
        mounted = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert mounted[volume["name"]] == str(project.folder.parent)
        # The job works in the project on the volume, where raw pictures and the state of a training lie.
        (command,) = container["args"][1:]
        assert f"--directory {project.folder}" in command
        assert "device=cuda" in command
    assert memory == [memory[0], 2 * memory[0], 4 * memory[0]]


def test_jobs_without_a_gpu_ask_for_none(project):
    own_data(project)
    target = "results/small/index/mine/test.parquet"
    jobs, _ = asked_for(project, target, "--configfile", with_models(project))
    resources = jobs[0]["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert "nvidia.com/gpu" not in resources["limits"]
    assert "tolerations" not in jobs[0]["spec"]["template"]["spec"]
