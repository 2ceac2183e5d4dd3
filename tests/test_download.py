import builtins
import contextlib
import errno
import hashlib
import http.server
import io
import json
import os
import shutil
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests
from conftest import serving

from cdfss import CdfssError
from cdfss.data import download, places

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; what goes wrong is told by the server's attributes."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers.get("Range"))
        content = server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        if "Authorization" in self.headers:
            server.accounts.append(self.headers["Authorization"])
        if server.failures and self.path not in server.healthy:
            server.failures -= 1
            return self.send_error(503)
        begin = 0
        if self.headers.get("Range") and server.ranges:
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return None
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        end = min(begin + server.cut, len(content)) if server.cut else len(content)
        end = min(end, server.stops.get(self.path, end))
        self.wfile.write(content[begin:end])
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server on loopback, with no waiting between attempts."""
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with serving(
        Handler,
        files={"/data.bin": CONTENT},
        requests=[],
        healthy=set(),
        accounts=[],
        stops={},  # address: bytes after which it never brings more
        cut=0,
        ranges=True,
        failures=0,
    ) as running:
        yield running


def test_a_whole_file_comes_and_nothing_else_is_left(server, tmp_path):
    download.http(f"{server.url}/data.bin", tmp_path / "x", f"sha256:{SHA256}")
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_connection_that_is_cut_again_and_again_is_resumed(server, tmp_path):
    server.cut = 300_000
    download.http(f"{server.url}/data.bin", tmp_path / "x", f"sha256:{SHA256}")
    assert (tmp_path / "x").read_bytes() == CONTENT
    begins = [int(r.removeprefix("bytes=").removesuffix("-")) if r else 0 for r in server.requests]
    assert begins[:3] == [0, 262_144, 524_288]  # whole chunks of what came before the cut
    assert begins == sorted(set(begins))


def test_a_part_of_an_earlier_run_is_continued(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT[:5000])
    download.http(f"{server.url}/data.bin", tmp_path / "x", f"sha256:{SHA256}")
    assert server.requests == ["bytes=5000-"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "x.part").write_bytes(b"old" * 1000)
    download.http(f"{server.url}/data.bin", tmp_path / "x", f"sha256:{SHA256}")
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_kept(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT)
    download.http(f"{server.url}/data.bin", tmp_path / "x", f"sha256:{SHA256}")
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT + b"more")
    download.http(f"{server.url}/data.bin", tmp_path / "x", f"sha256:{SHA256}")
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_wrong_hash_is_told_and_the_file_removed(server, tmp_path):
    with pytest.raises(CdfssError) as error:
        download.http(f"{server.url}/data.bin", tmp_path / "x", "sha256:" + "0" * 64)
    assert SHA256 in str(error.value)
    assert "expected 0000" in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 1  # it was one download; to ask again at once brings the same


def test_md5_and_the_first_digits_of_a_sha256_are_checked_too(server, tmp_path):
    md5 = hashlib.md5(CONTENT).hexdigest()
    download.http(f"{server.url}/data.bin", tmp_path / "x", f"md5:{md5}")
    download.http(f"{server.url}/data.bin", tmp_path / "y", f"sha256:{SHA256[:8]}")
    with pytest.raises(CdfssError, match="md5"):
        download.http(f"{server.url}/data.bin", tmp_path / "z", "md5:" + "0" * 32)


def test_an_address_that_is_gone_is_told_at_once(server, tmp_path):
    with pytest.raises(CdfssError, match="answers 404"):
        download.http(f"{server.url}/gone.bin", tmp_path / "x", None)
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again_but_not_for_ever(server, tmp_path):
    server.failures = 2
    download.http(f"{server.url}/data.bin", tmp_path / "x", None)
    server.failures = 10**6
    with pytest.raises(CdfssError, match=r"503.*gave up after 5 attempts"):
        download.http(f"{server.url}/data.bin", tmp_path / "y", None)


def test_a_dead_server_is_told_and_not_asked_often(tmp_path, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    tries, get = [], requests.get
    monkeypatch.setattr(requests, "get", lambda *a, **k: tries.append(a) or get(*a, **k))
    with pytest.raises(CdfssError, match="no connection"):
        download.http("http://127.0.0.1:9/data.bin", tmp_path / "x", None)
    assert len(tries) == download.UNREACHED


def test_a_server_that_goes_away_in_the_middle_gets_all_attempts(server, tmp_path, monkeypatch):
    server.cut = 300_000
    tries, get = [], requests.get

    def gone_after_the_first(*arguments, **options):
        tries.append(arguments)
        if len(tries) > 1:
            raise requests.ConnectionError
        return get(*arguments, **options)

    monkeypatch.setattr(requests, "get", gone_after_the_first)
    with pytest.raises(CdfssError, match="on from the 262144 bytes that are there"):
        download.http(f"{server.url}/data.bin", tmp_path / "x", f"sha256:{SHA256}")
    assert len(tries) == 1 + download.ATTEMPTS


def archive(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in files.items():
            file.writestr(name, text)
    return buffer.getvalue()


@pytest.fixture
def registered(server, monkeypatch):
    """A registry with one data set on the loopback server."""
    server.files |= {"/pictures.zip": archive(**{"a/1.txt": "one", "a/2.txt": "two"}), "/list.txt": b"a\n"}
    digest = hashlib.sha256(b"a\n").hexdigest()
    files = [
        {"http": f"{server.url}/pictures.zip", "hash": None, "size_mb": 1, "unpack": "inner"},
        {"http": f"{server.url}/list.txt", "hash": f"sha256:{digest}", "size_mb": 1, "save": "lists/l.txt"},
    ]
    entry = {"title": "T", "licence": "L", "citation": "C", "sources": {"here": files}}
    monkeypatch.setattr(places, "registry", lambda: {"fss1000": entry})
    server.registered = files
    return server


@pytest.fixture
def settings(tmp_path):
    """Settings of a data set "mine" whose home is tmp_path/mine/here."""
    return {
        "name": "mine",
        "format": "fss1000",
        "download": "here",
        "folder": str(tmp_path),
        "synthetic": None,
    }


def test_a_registered_data_set_is_unpacked_and_recorded(registered, settings):
    home, lines = places.home(settings), []
    marker = home / "complete.json"
    download.data_set(settings, marker, lines.append)
    assert (home / "raw" / "inner" / "a" / "2.txt").read_text() == "two"
    assert (home / "raw" / "lists" / "l.txt").read_text() == "a\n"
    record = json.loads(marker.read_text())
    assert record["files"][0]["sha256"] == hashlib.sha256(registered.files["/pictures.zip"]).hexdigest()
    assert record["files"][0]["origin"] == f"{registered.url}/pictures.zip"
    assert any("none is published to compare with" in line for line in lines)
    assert {path.name for path in home.iterdir()} == {"complete.json", "source.json", "raw"}


def test_a_download_that_fails_half_way_goes_on_where_it_was(registered, settings):
    home = places.home(settings)
    content = registered.files.pop("/list.txt")
    with pytest.raises(CdfssError, match="404"):
        download.data_set(settings, home / "complete.json", print)
    assert not (home / "raw").exists()  # half of it must not pass for a copy of the data set
    assert not (home / "complete.json").exists()
    registered.files["/list.txt"] = content
    registered.requests.clear()
    download.data_set(settings, home / "complete.json", print)
    assert len(registered.requests) == 1
    assert (home / "complete.json").exists()


def test_a_job_that_is_killed_while_it_unpacks_goes_on_from_the_archives(registered, settings, monkeypatch):
    home = places.home(settings)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            download.data_set(settings, home / "complete.json", print)
    assert not (home / "raw").exists()
    assert (home / "archives" / "pictures.zip").is_file()
    (home / "raw.partial").mkdir()  # what a SIGKILL leaves
    (home / "raw.partial" / "half.txt").write_text("half")
    registered.requests.clear()
    download.data_set(settings, home / "complete.json", print)
    assert len(registered.requests) == 1  # the list; the archive was there
    assert not (home / "raw" / "half.txt").exists()


def test_what_an_earlier_download_left_in_raw_does_not_stay(registered, settings):
    home = places.home(settings)
    (home / "raw").mkdir(parents=True)
    (home / "raw" / "old.txt").write_text("old")
    download.data_set(settings, home / "complete.json", print)
    assert not (home / "raw" / "old.txt").exists()


@pytest.mark.parametrize("name", ["raw", "raw.partial"])
def test_nothing_is_written_through_a_link_in_the_place_of_a_folder(registered, settings, tmp_path, name):
    home, elsewhere, lines = places.home(settings), tmp_path / "elsewhere", []
    home.mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "own.txt").write_text("own")
    (home / name).symlink_to(elsewhere)
    download.data_set(settings, home / "complete.json", lines.append)
    assert [path.name for path in elsewhere.iterdir()] == ["own.txt"]
    assert not (home / "raw").is_symlink()
    assert (home / "raw" / "lists" / "l.txt").is_file()
    assert any("was a link to" in line for line in lines) == (name == "raw")


@pytest.mark.parametrize("name", ["source.json", "complete.json"])
@pytest.mark.parametrize("content", [b"", b'[{"http": "http://1', b"\xff\xfe"])
def test_a_broken_record_is_taken_as_not_there(registered, settings, name, content):
    home, lines = places.home(settings), []
    home.mkdir(parents=True)
    (home / name).write_bytes(content)
    download.data_set(settings, home / "complete.json", lines.append)
    assert json.loads((home / name).read_text())
    assert any("source.json is broken" in line for line in lines) == (name == "source.json")


def test_archives_of_another_registry_are_not_taken(registered, settings):
    home = places.home(settings)
    registered.files.pop("/list.txt")
    with pytest.raises(CdfssError, match="404"):
        download.data_set(settings, home / "complete.json", print)
    registered.registered[0] |= {"http": f"{registered.url}/new/pictures.zip"}
    registered.files |= {"/new/pictures.zip": archive(**{"a/1.txt": "new"}), "/list.txt": b"a\n"}
    download.data_set(settings, home / "complete.json", print)
    assert (home / "raw" / "inner" / "a" / "1.txt").read_text() == "new"


def test_an_archive_put_there_by_hand_is_checked_too(registered, settings):
    registered.registered[0]["hash"] = "md5:" + "0" * 32
    archives = places.home(settings) / "archives"
    archives.mkdir(parents=True)
    (archives / "pictures.zip").write_bytes(archive(**{"a.txt": "another"}))
    with pytest.raises(CdfssError, match=r"zip: md5 of its \d+ bytes is .*Remove it and run again"):
        download.data_set(settings, "m.json", print)


def test_a_web_page_instead_of_an_archive_is_told_and_removed(registered, settings):
    registered.files["/pictures.zip"] = b"<html>please log in</html>"
    home = places.home(settings)
    with pytest.raises(CdfssError, match=r"cannot be unpacked.*asks for a log-in"):
        download.data_set(settings, home / "complete.json", print)
    assert not (home / "archives" / "pictures.zip").exists()


def test_a_source_that_is_not_registered_is_named(registered, settings):
    with pytest.raises(CdfssError, match=r"data\.mine\.download is 'there'; registered are here"):
        download.source_of(settings | {"download": "there"})


def test_kaggle_without_an_account_says_the_steps(monkeypatch, tmp_path):
    for key in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    settings = {"name": "xray", "format": "chestxray", "download": None, "folder": str(tmp_path)}
    settings["synthetic"] = None
    text = download.obstacle(settings)
    assert "needs a Kaggle account" in text
    assert "1. sign in" in text
    assert "data.xray.root" in text
    with pytest.raises(CdfssError, match="needs a Kaggle account"):
        download.data_set(settings, tmp_path / "m.json", print)
    (tmp_path / "kaggle.json").write_text("{}")
    assert download.obstacle(settings) is None


def urls(file):
    """The addresses of a registered file."""
    return [file["http"]] if isinstance(file.get("http"), str) else file.get("http", [])


def test_every_registered_file_says_what_must_be_known():
    digits = {"md5": 32, "sha256": 64}
    for name, entry in places.registry().items():
        assert {"title", "home", "licence", "citation", "sources"} <= set(entry), name
        for files in entry["sources"].values():
            names = []
            for file in files:
                assert len({"http", "drive", "kaggle"} & set(file)) == 1
                assert {"hash", "size_mb"} <= set(file)
                assert ("unpack" in file) != ("save" in file)
                kind, _, value = (file["hash"] or "none:").partition(":")
                assert len(value) == digits.get(kind, 0)
                assert isinstance(file.get("http", ""), str) or file["hash"]  # mirrors need one
                names += [file["name"]] if "name" in file else [a.rsplit("/")[-1] for a in urls(file)[:1]]
            assert len(names) == len(set(names))  # they lie in one folder


def test_pascal_has_a_second_address_in_both_sources():
    for files in places.registry()["pascal"]["sources"].values():
        hosts = [address.split("/")[2] for address in urls(files[0])]
        assert hosts == ["host.robots.ox.ac.uk", "pjreddie.com"]


# Mirrors.


@pytest.mark.parametrize(
    ("bad", "reason"),
    [("gone", "answers 404"), ("busy", "answers 503"), ("unreachable", "no connection"), ("wrong", "sha")],
)
def test_the_next_mirror_is_asked_and_the_log_says_why(server, tmp_path, bad, reason):
    server.files |= {"/busy.bin": CONTENT, "/wrong.bin": CONTENT[::-1]}
    server.failures, server.healthy = 10**6, {"/data.bin", "/wrong.bin"}
    first = "http://127.0.0.1:9/x.bin" if bad == "unreachable" else f"{server.url}/{bad}.bin"
    lines = []
    download.http([first, f"{server.url}/data.bin"], tmp_path / "x", f"sha256:{SHA256}", lines.append)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert len(lines) == 1
    assert lines[0].startswith(f"{first}: ")
    assert reason in lines[0]
    assert lines[0].endswith(f"trying {server.url}/data.bin")


def test_when_all_mirrors_fail_each_is_listed_with_its_reason(server, tmp_path):
    server.files["/wrong.bin"] = b"wrong"
    addresses = [f"{server.url}/gone.bin", f"{server.url}/wrong.bin", "http://127.0.0.1:9/x.bin"]
    with pytest.raises(CdfssError) as error:
        download.http(addresses, tmp_path / "x", f"sha256:{SHA256}", print)
    reasons = ["the server answers 404", "sha256 of its 5 bytes", "no connection"]
    for address, reason in zip(addresses, reasons):
        assert f"{address}: {reason}" in str(error.value)
    assert "save the file by hand as" in str(error.value)


def test_a_part_of_one_mirror_is_continued_from_the_next_where_a_hash_is_known(server, tmp_path):
    server.files["/first.bin"] = CONTENT
    server.stops["/first.bin"] = 300_000
    addresses = [f"{server.url}/first.bin", f"{server.url}/data.bin"]
    download.http(addresses, tmp_path / "x", f"sha256:{SHA256}", print)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=262144-"


def test_without_a_hash_a_part_is_never_continued_from_another_mirror(server, tmp_path):
    server.files["/first.bin"] = CONTENT[::-1]
    server.stops["/first.bin"] = 300_000
    (tmp_path / "x.part").write_bytes(b"of an earlier run, from who knows which")
    download.http([f"{server.url}/first.bin", f"{server.url}/data.bin"], tmp_path / "x", None, print)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert server.requests[0] is None
    assert server.requests[-1] is None


def test_a_part_of_mirrors_that_disagree_is_loaded_anew_from_the_last(server, tmp_path):
    server.files["/first.bin"] = CONTENT[::-1]
    server.stops["/first.bin"] = 300_000
    lines = []
    addresses = [f"{server.url}/first.bin", f"{server.url}/data.bin"]
    download.http(addresses, tmp_path / "x", f"sha256:{SHA256}", lines.append)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert server.requests[-2:] == ["bytes=262144-", None]
    assert "loaded anew" in lines[-1]


def test_mirrors_of_the_registry_are_recorded(registered, settings):
    good = f"{registered.url}/pictures.zip"
    known = hashlib.sha256(registered.files["/pictures.zip"]).hexdigest()
    mirrors = [f"{registered.url}/gone/pictures.zip", good]
    registered.registered[0] |= {"http": mirrors, "hash": f"sha256:{known}"}
    marker = places.marker(settings)
    download.data_set(settings, marker, print)
    origin = json.loads(marker.read_text())["files"][0]["origin"]
    assert origin == f"{registered.url}/gone/pictures.zip or {good}"


# Secrets.


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://a.org/b.zip", "https://a.org/b.zip"),
        ("https://me:pa55@a.org:8080/b.zip", "https://a.org:8080/b.zip"),
        ("https://pa55@a.org/b.zip", "https://a.org/b.zip"),
        ("https://a.org/b.zip?X-Amz-Signature=pa55&x=1#pa55", "https://a.org/b.zip?***"),
        ("https://a.org/b.zip?pa55", "https://a.org/b.zip?***"),
        ("https://drive.google.com/uc?id=16Tgq-eI_0", "https://drive.google.com/uc?id=16Tgq-eI_0"),
        ("https://drive.google.com/uc?id=1&key=pa55", "https://drive.google.com/uc?***"),
        ("https://[pa55", "***"),
    ],
)
def test_addresses_are_shown_without_what_may_be_secret(address, expected):
    assert download.shown(address) == expected


def test_passwords_and_tokens_of_an_address_are_used_but_never_shown(registered, settings, capsys):
    content = registered.files.pop("/pictures.zip")
    secret = registered.url.replace("//", "//me:pa55word@") + "/pictures.zip?token=t0ken"
    registered.registered[0]["http"] = secret
    home, lines = places.home(settings), []
    with pytest.raises(CdfssError) as error:
        download.data_set(settings, home / "complete.json", lines.append)
    registered.files["/pictures.zip?token=t0ken"] = b"<html>"
    with pytest.raises(CdfssError) as page:
        download.data_set(settings, home / "complete.json", lines.append)
    registered.files["/pictures.zip?token=t0ken"] = content
    download.data_set(settings, home / "complete.json", lines.append)
    assert "answers 404" in str(error.value)
    assert "web page" in str(page.value)
    seen = [*lines, str(error.value), str(page.value), *capsys.readouterr()]
    seen += [(home / name).read_text() for name in ("source.json", "complete.json")]
    assert all("pa55word" not in text and "t0ken" not in text for text in seen)
    assert registered.accounts  # the server got them


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """A stand-in for kagglehub, and an account with three keys; its attributes say what happens."""
    stand_in = types.ModuleType("kagglehub")
    stand_in.folder, stand_in.error = tmp_path / "cache", None

    def dataset_download(handle):
        if stand_in.error:
            raise stand_in.error
        return str(stand_in.folder)

    stand_in.dataset_download = dataset_download
    (stand_in.folder / "pictures").mkdir(parents=True)
    (stand_in.folder / "pictures" / "1.txt").write_text("cached")
    account = tmp_path / "account"
    account.mkdir()
    (account / "kaggle.json").write_text('{"username": "me", "key": "filekey"}')
    monkeypatch.setitem(sys.modules, "kagglehub", stand_in)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(account))
    monkeypatch.setenv("KAGGLE_KEY", "envkey")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "envkey-and-token")
    return stand_in


FROM_KAGGLE = {"kaggle": "a/b", "hash": None, "size_mb": None, "unpack": "."}
FROM_DRIVE = {"drive": "16Tg", "name": "p.zip", "hash": None, "size_mb": None, "unpack": "."}
SPOKEN = "401 for me with envkey, envkey-and-token, filekey at https://u:p4ss@k.com/d?sig=s1g end"
HIDDEN = "401 for me with ***, ***, *** at https://k.com/d?*** end"


def test_errors_of_kaggle_are_shown_without_the_keys(kaggle, registered, settings):
    registered.registered.insert(0, FROM_KAGGLE)
    kaggle.error = RuntimeError(SPOKEN)
    with pytest.raises(CdfssError) as error:
        download.data_set(settings, places.marker(settings), print)
    assert HIDDEN in str(error.value)
    assert error.value.__suppress_context__  # a traceback would show the cause


def test_errors_of_google_drive_are_shown_without_the_keys(kaggle, registered, settings, monkeypatch):
    def fail(**_):
        raise RuntimeError(SPOKEN)

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=fail))
    registered.registered[0] = FROM_DRIVE
    with pytest.raises(CdfssError) as error:
        download.data_set(settings, places.marker(settings), print)
    assert HIDDEN in str(error.value)
    assert "https://drive.google.com/uc?id=16Tg in a browser" in str(error.value)
    assert list((places.home(settings) / "archives").iterdir()) == []


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"key": null}', "\udcff"])
def test_a_broken_account_file_is_no_traceback(kaggle, tmp_path, content):
    (tmp_path / "account" / "kaggle.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert download._without_secrets(RuntimeError("no envkey")) == "no ***"


# Kaggle keeps its own copy, to which raw links.


def test_kaggle_files_are_linked_anew_and_its_copy_is_left_alone(kaggle, registered, settings):
    registered.registered[:] = [FROM_KAGGLE]
    home = places.home(settings)
    (home / "raw").mkdir(parents=True)
    (home / "raw" / "gone").symlink_to(kaggle.folder / "gone")
    download.data_set(settings, places.marker(settings), print)
    assert [path.name for path in (home / "raw").iterdir()] == ["pictures"]
    assert (home / "raw" / "pictures" / "1.txt").read_text() == "cached"
    download.data_set(settings, places.marker(settings), print)
    assert (kaggle.folder / "pictures" / "1.txt").read_text() == "cached"


@pytest.mark.parametrize("place", [{"save": "pictures/l.txt"}, {"save": "pictures"}])
def test_other_files_are_not_written_through_the_links_to_kaggle(kaggle, registered, settings, place):
    listed = {k: v for k, v in registered.registered[1].items() if k != "save"} | place
    registered.registered[:] = [FROM_KAGGLE, listed]
    with pytest.raises(CdfssError, match="through a link"):
        download.data_set(settings, places.marker(settings), print)
    assert [path.name for path in (kaggle.folder / "pictures").iterdir()] == ["1.txt"]


# Disks.


class Failing(io.FileIO):
    """A file that takes `limit` bytes and then raises the error of the given number."""

    def __init__(self, path, mode, number, limit):
        super().__init__(path, mode)
        self.number, self.limit = number, limit

    def write(self, data):
        if self.limit <= 0:
            raise OSError(self.number, os.strerror(self.number))
        self.limit -= len(data)
        return super().write(data)


def test_a_disk_that_is_full_in_a_download_keeps_the_part_and_says_so(server, tmp_path, monkeypatch):
    original = Path.open

    def nearly_full(path, mode="r", *rest, **options):
        if path.name.endswith(".part"):
            return Failing(path, mode, errno.ENOSPC, 200_000)
        return original(path, mode, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", nearly_full)
        with pytest.raises(CdfssError) as error:
            download.http([f"{server.url}/data.bin"] * 2, tmp_path / "x", f"sha256:{SHA256}", print)
    assert (tmp_path / "x.part").stat().st_size == 262_144
    assert f"{tmp_path / 'x.part'}: No space left on device after 262144 bytes; " in str(error.value)
    assert " GB are free on its disk. Make room" in str(error.value)
    assert len(server.requests) == 1  # another mirror does not make room
    download.http(f"{server.url}/data.bin", tmp_path / "x", f"sha256:{SHA256}")
    assert server.requests[1:] == ["bytes=262144-"]


def test_a_folder_that_may_not_be_written_is_told(registered, settings, tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("a file in the way")
    with pytest.raises(CdfssError, match="A file is where a folder must be"):
        download.data_set(settings, places.marker(settings), print)
    (tmp_path / "mine").unlink()

    def forbidden(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(
        CdfssError, match=r"may not be written to \(Permission denied\); change its owner or rights"
    ):
        download.data_set(settings, places.marker(settings), print)
    with pytest.raises(CdfssError, match="Permission denied"):
        download.http(f"{registered.url}/list.txt", tmp_path / "x", None)


def test_a_full_disk_is_not_taken_for_a_quota_of_google_drive(monkeypatch, tmp_path):
    def full(output, **_):
        raise OSError(errno.ENOSPC, "No space left on device", output)

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=full))
    with pytest.raises(CdfssError, match=r"No space left on device.* GB are free on its disk") as error:
        download._fetch_drive("16Tg", tmp_path / "p.zip", None)
    assert "quota may be used up" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_hash_is_checked_for_google_drive_too(monkeypatch, tmp_path):
    def bring(output, **_):
        return Path(output).write_bytes(b"a page") and output

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=bring))
    with pytest.raises(CdfssError, match=f"sha256 of its 6 bytes is .*, expected {SHA256}"):
        download._fetch_drive("16Tg", tmp_path / "p.zip", f"sha256:{SHA256}")
    download._fetch_drive("16Tg", tmp_path / "p.zip", None)
    assert (tmp_path / "p.zip").read_bytes() == b"a page"


# Archives.


@pytest.fixture
def unpack(tmp_path):
    """Unpacks bytes saved as `name`; nothing but the target may change, and `kept` says what stayed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "own.txt").write_text("own")
    path = tmp_path / "archives"
    path.mkdir()

    def run(content, name="pictures.zip"):
        run.lines = []
        (path / name).write_bytes(content)
        try:
            download._unpack(path / name, tmp_path / "raw", run.lines.append)
        finally:
            run.kept = (path / name).exists()
            assert {p.name for p in tmp_path.iterdir()} <= {"outside", "archives", "raw"}
            assert [p.read_text() for p in outside.iterdir()] == ["own"]
            assert not (path / name).exists() or (path / name).read_bytes() == content
        return {str(p.relative_to(run.raw)): p.read_bytes() for p in run.raw.rglob("*") if p.is_file()}

    run.raw, run.outside = tmp_path / "raw", outside
    return run


def tar(*members, mode="w"):
    """A tar of (name, content); a content that is no bytes gives fields of the header instead."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(member, key, value)
                file.addfile(member)
    return buffer.getvalue()


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def altered(content, signature, offset, value):
    """A zip with bytes written over at `offset` of every header that begins with `signature`."""
    content, at = bytearray(content), content.find(signature)
    while at >= 0:
        content[at + offset : at + offset + len(value)] = value
        at = content.find(signature, at + 1)
    return bytes(content)


LOCAL, CENTRAL = b"PK\3\4", b"PK\1\2"
TARS = ("", "gz", "bz2", "xz")  # compressions
PAIR = (("a/1.txt", b"one" * 99), ("a/2.txt", b"two" * 99))


@pytest.mark.parametrize("name", ["pictures.zip", "pictures.tar", "pictures"])
def test_the_kind_of_an_archive_is_told_by_its_content(unpack, name):
    tars = [tar(*PAIR, mode=f"w:{kind}") for kind in TARS]
    for content in [zipped(*PAIR), zipped(*PAIR, method=zipfile.ZIP_STORED), *tars]:
        assert unpack(content, name) == dict(PAIR)
        shutil.rmtree(unpack.raw)


def test_a_tar_that_ends_in_a_zip_is_a_tar(unpack):
    content = tar(("inner.zip", zipped(*PAIR)), ("b.txt", b"b"))
    assert set(unpack(content)) == {"inner.zip", "b.txt"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("content", [zipped(*PAIR), tar(*PAIR)])
def test_what_the_disk_refuses_never_costs_the_archive(unpack, monkeypatch, number, content):
    original = builtins.open

    def refuses(path, mode="r", *rest, **options):
        if str(path).startswith(str(unpack.raw)):
            return Failing(path, mode, number, 0)
        return original(path, mode, *rest, **options)

    monkeypatch.setattr(builtins, "open", refuses)
    with pytest.raises(CdfssError) as error:
        unpack(content, "pictures.tar")
    monkeypatch.undo()
    assert unpack.kept
    text = str(error.value)
    assert text.startswith(f"{unpack.raw / 'a' / '1.txt'}: {os.strerror(number)}")
    assert "run again: what was downloaded is kept" in text
    assert ("GB are free on its disk. Make room" in text) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert ("Make it writable" in text) == (number in (errno.EACCES, errno.EROFS))


@pytest.mark.parametrize("name", ["n" * 300 + ".jpg", "n" * 300 + "/1.jpg"])
@pytest.mark.parametrize("pack", [zipped, tar])
def test_a_name_that_is_too_long_for_the_disk_never_costs_the_archive(unpack, pack, name):
    with pytest.raises(CdfssError, match=r"File name too long\. Set folder in the configuration to"):
        unpack(pack((name, b"x")))
    assert unpack.kept


def test_an_encrypted_zip_is_named_and_kept(unpack):
    content = altered(altered(zipped(*PAIR), LOCAL, 6, b"\1\0"), CENTRAL, 8, b"\1\0")
    with pytest.raises(CdfssError, match=r"'a/1\.txt' is encrypted.*unpack it by hand and set data"):
        unpack(content)
    assert unpack.kept


def test_an_unknown_compression_is_named_and_kept(unpack):
    content = altered(altered(zipped(*PAIR), LOCAL, 8, b"\x09\0"), CENTRAL, 10, b"\x09\0")
    with pytest.raises(CdfssError, match=r"cannot be unpacked here.*unpack it by hand"):
        unpack(content)
    assert unpack.kept


@pytest.mark.parametrize("name", ["pictures.zip", "pictures.tar", "pictures.tgz", "pictures.rar"])
@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b" \r\n\t<html>", b"\xef\xbb\xbf<?xml?>"])
def test_a_web_page_is_named_as_one_whatever_its_name(unpack, name, content):
    with pytest.raises(CdfssError, match=r"it is a web page, .*asks for a log-in.*was removed"):
        unpack(content, name)
    assert not unpack.kept


@pytest.mark.parametrize("name", ["pictures.zip", "pictures.tar", "pictures.tar.gz", "pictures"])
def test_an_unknown_kind_is_named_by_its_beginning(unpack, name):
    with pytest.raises(CdfssError, match=r"neither zip nor tar, and begins with b'Rar!"):
        unpack(b"Rar!\x1a\x07\x00" * 100, name)
    assert not unpack.kept


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


DAMAGED = {
    "zip cut": zipped(*PAIR)[:-30],
    "zip content": flipped(zipped(*PAIR, method=zipfile.ZIP_STORED), 60),
    "zip empty": zipped(),
    "tar cut in a header": tar(*PAIR)[:1200],
    "tar cut after a member": tar(*PAIR)[:1024],
    "tar cut in a member": tar(*PAIR)[:700],
    "tar second header": flipped(tar(*PAIR), 1024),
    "tar empty": tar(),
    **{f"{kind} cut": tar(*PAIR, mode=f"w:{kind}")[:-20] for kind in TARS[1:]},
    "gz checksum": tar(*PAIR, mode="w:gz")[:-8] + bytes(8),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_archive_is_removed_and_told(unpack, case):
    with pytest.raises(CdfssError, match=r"cannot be unpacked \(.+\) and was removed; run again"):
        unpack(DAMAGED[case], "pictures.tar.gz")
    assert not unpack.kept


HOSTILE = ["/abs.txt", "../up.txt", "a/../../up.txt", "..\\up.txt", "C:\\up.txt", "\\up.txt", "//h/up.txt"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("pack", [zipped, tar])
def test_a_member_that_would_leave_the_folder_is_refused_by_name(unpack, pack, name):
    with pytest.raises(CdfssError) as error:
        unpack(pack(("good.txt", b"good"), (name, b"bad")))
    assert "is no name of a file inside the archive's folder; nothing was unpacked" in str(error.value)
    assert repr(name) in str(error.value) or repr(name.replace("\\", "/")) in str(error.value)
    assert unpack.kept
    assert not (unpack.raw / "good.txt").exists()


def test_backslashes_within_a_name_separate_folders(unpack):
    content = zipped(("a\\", b""), ("a\\b.txt", b"b"))
    assert unpack(content) == {"a/b.txt": b"b"}


def link(target, kind=tarfile.SYMTYPE):
    return {"type": kind, "linkname": str(target)}


def test_links_and_devices_of_a_tar_are_left_out_and_told(unpack):
    outside = unpack.outside
    members = [
        ("good.txt", b"good"),
        ("out", link(outside)),
        ("out/new.txt", b"through the link"),
        ("file", link(outside / "own.txt")),
        ("file", b"over the link"),
        ("hard", link(outside / "own.txt", tarfile.LNKTYPE)),
        ("hard", b"over the hard link"),
        ("up", link("../outside", tarfile.LNKTYPE)),
        ("fifo", {"type": tarfile.FIFOTYPE}),
        ("device", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
    ]
    found = unpack(tar(*members))
    assert found == {
        "good.txt": b"good",
        "out/new.txt": b"through the link",
        "file": b"over the link",
        "hard": b"over the hard link",
    }
    assert not any(path.is_symlink() for path in unpack.raw.rglob("*"))
    assert "6 links or devices are left out, the first are 'out', 'file', 'hard'" in unpack.lines[-1]


def test_links_of_a_zip_are_left_out_and_told(unpack):
    info = zipfile.ZipInfo("out")
    info.external_attr = 0o120777 << 16
    found = unpack(zipped((info, str(unpack.outside)), ("out/new.txt", b"through the link")))
    assert found == {"out/new.txt": b"through the link"}
    assert "1 links or devices are left out, the first are 'out'" in unpack.lines[-1]


def test_a_link_that_lies_in_the_target_is_not_written_through(unpack):
    unpack.raw.mkdir()
    (unpack.raw / "out").symlink_to(unpack.outside)
    with pytest.raises(CdfssError, match="through a link"):
        unpack(zipped(("out/new.txt", b"bad")))
    with pytest.raises(CdfssError, match="through a link"):
        unpack(tar(("a.txt", b"a"), ("out/sub", {"type": tarfile.DIRTYPE})))
    (unpack.raw / "file").symlink_to(unpack.outside / "own.txt")
    with pytest.raises(CdfssError, match="through a link"):
        unpack(tar(("file", b"bad")))
    assert unpack.kept


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("pack", [zipped, tar])
def test_of_members_with_one_name_the_last_stays(unpack, pack):
    assert unpack(pack(("a", b"first, and longer"), ("a", b"last"))) == {"a": b"last"}


@pytest.mark.parametrize("pack", [zipped, tar])
@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_a_name_of_both_a_file_and_a_folder_is_told(unpack, pack, names):
    with pytest.raises(CdfssError, match="A file is where a folder must be"):
        unpack(pack((names[0], b"x"), (names[1], b"y")))
    assert unpack.kept


# Bombs.


@pytest.mark.parametrize("mode", ["zip", *TARS[1:]])
def test_an_archive_that_states_far_more_than_it_weighs_is_refused(unpack, monkeypatch, mode):
    monkeypatch.setattr(download, "BOMB_BYTES", 10**6)
    zeros = ("zeros.bin", bytes(3 * 10**6))
    content = zipped(zeros) if mode == "zip" else tar(zeros, mode=f"w:{mode}")
    with pytest.raises(CdfssError, match=r"more than 200 times is refused as a bomb") as error:
        unpack(content)
    assert f"states at least 0.0 GB, {3e6 / len(content):.0f} times its size" in str(error.value)
    assert unpack.kept
    assert not any(unpack.raw.iterdir())


def test_a_header_that_states_terabytes_is_refused_before_it_is_followed(unpack):
    header = tarfile.TarInfo("zeros.bin")
    header.size = 5 * 10**12
    content = header.tobuf(tarfile.GNU_FORMAT) + bytes(20 * 512)
    with pytest.raises(CdfssError, match=r"states at least 5000\.0 GB, \d+ times its size"):
        unpack(content)


@pytest.mark.parametrize("content", [zipped(*PAIR), tar(*PAIR), tar(*PAIR, mode="w:gz")])
def test_an_archive_that_does_not_fit_the_disk_is_refused_at_once(unpack, monkeypatch, content):
    usage = shutil.disk_usage(unpack.outside)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=500))
    monkeypatch.setattr(download, "GB", 1.0)
    with pytest.raises(CdfssError, match=r"states at least 594\.000 GB, and 500\.000 GB are free"):
        unpack(content)
    assert unpack.kept
    assert not any(unpack.raw.iterdir())


@pytest.mark.parametrize("pack", [zipped, tar])
def test_too_many_members_are_refused(unpack, monkeypatch, pack):
    monkeypatch.setattr(download, "MEMBERS", 3)
    unpack(pack(*((str(i), b"") for i in range(3))))
    with pytest.raises(CdfssError, match="more than 3 members"):
        unpack(pack(*((str(i), b"") for i in range(4))))
    assert unpack.kept


@pytest.mark.parametrize("size", [10, 10**6])
def test_a_zip_that_lies_about_a_size_writes_no_more_than_it_states(unpack, size):
    content = zipped(("a.bin", bytes(10**5)))
    stated = size.to_bytes(4, "little")
    with pytest.raises(CdfssError, match="was removed"):
        unpack(altered(altered(content, LOCAL, 22, stated), CENTRAL, 24, stated))
    assert (unpack.raw / "a.bin").stat().st_size <= min(size, 10**5)


def test_a_long_name_of_a_tar_is_not_read_into_memory(unpack, monkeypatch):
    monkeypatch.setattr(download, "NAME_BYTES", 1000)
    assert len(unpack(tar(("n/" * 450 + "a", b"x")))) == 1
    with pytest.raises(CdfssError, match=r"a name of 1\d\d\d bytes"):
        unpack(tar(("n/" * 600 + "a", b"x")))


def test_whatever_bytes_come_only_the_one_error_is_raised_and_nothing_leaves_the_folder(unpack):
    rng = np.random.default_rng(0)
    whole = [zipped(*PAIR), zipped(*PAIR, method=zipfile.ZIP_STORED), tar(*PAIR), tar(*PAIR, mode="w:gz")]
    for trial in range(160):
        content = bytearray(whole[trial % 4])
        kind = trial // 4 % 4
        if kind == 0:
            content = bytearray(rng.bytes(rng.integers(2000)))
        elif kind == 1:
            del content[rng.integers(len(content)) :]
        else:  # single bits anywhere, or at the beginning, where the first header is
            for place in rng.integers(len(content) if kind == 2 else 100, size=4):
                content[place] ^= 1 << rng.integers(8)
        with contextlib.suppress(CdfssError):
            unpack(bytes(content))
        shutil.rmtree(unpack.raw, ignore_errors=True)
