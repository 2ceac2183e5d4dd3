import functools
import hashlib
import http.server
import io
import json
import threading
import zipfile

import pytest

from cdfss import CdfssError
from cdfss.datasets import download

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
        self.wfile.write(content[begin:end])
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server on loopback, with no waiting between attempts."""
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files = {"/data.bin": CONTENT}
        running.requests, running.healthy = [], set()
        running.cut, running.ranges, running.failures = 0, True, 0
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=functools.partial(running.serve_forever, 0.02), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


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


def test_a_dead_server_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with pytest.raises(CdfssError, match="connection broke"):
        download.http("http://127.0.0.1:9/data.bin", tmp_path / "x", None)


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
    monkeypatch.setattr(download, "registry", lambda: {"fss1000": entry})
    return server


def test_a_registered_data_set_is_unpacked_and_recorded(registered, tmp_path):
    settings = {"name": "mine", "format": "fss1000", "download": None, "folder": str(tmp_path)}
    marker = tmp_path / "mine" / "complete.json"
    lines = []
    download.data_set(settings, marker, lines.append)
    assert (tmp_path / "mine" / "raw" / "inner" / "a" / "2.txt").read_text() == "two"
    assert (tmp_path / "mine" / "raw" / "lists" / "l.txt").read_text() == "a\n"
    record = json.loads(marker.read_text())
    assert record["files"][0]["sha256"] == hashlib.sha256(registered.files["/pictures.zip"]).hexdigest()
    assert any("none is published to compare with" in line for line in lines)
    assert not (tmp_path / "mine" / "archives").exists()


def test_a_download_that_fails_half_way_goes_on_where_it_was(registered, tmp_path):
    settings = {"name": "mine", "format": "fss1000", "download": None, "folder": str(tmp_path)}
    marker = tmp_path / "mine" / "complete.json"
    content = registered.files.pop("/list.txt")
    with pytest.raises(CdfssError, match="404"):
        download.data_set(settings, marker, print)
    assert not marker.exists()
    registered.files["/list.txt"] = content
    registered.requests.clear()
    download.data_set(settings, marker, print)
    assert len(registered.requests) == 1
    assert marker.exists()


def test_a_web_page_instead_of_an_archive_is_told_and_removed(registered, tmp_path):
    registered.files["/pictures.zip"] = b"<html>please log in</html>"
    settings = {"name": "mine", "format": "fss1000", "download": None, "folder": str(tmp_path)}
    with pytest.raises(CdfssError, match=r"cannot be unpacked.*asks for a log-in"):
        download.data_set(settings, tmp_path / "m.json", print)
    assert not (tmp_path / "mine" / "archives" / "pictures.zip").exists()


def test_a_source_that_is_not_registered_is_named(registered):
    settings = {"name": "mine", "format": "fss1000", "download": "there", "folder": "x"}
    with pytest.raises(CdfssError, match=r"data\.mine\.download is 'there'; registered are here"):
        download.source_of(settings)


def test_kaggle_without_an_account_says_the_steps(monkeypatch, tmp_path):
    for key in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    settings = {"name": "xray", "format": "chestxray", "download": None, "folder": str(tmp_path)}
    text = download.obstacle(settings)
    assert "needs a Kaggle account" in text
    assert "1. sign in" in text
    assert "data.xray.root" in text
    with pytest.raises(CdfssError, match="needs a Kaggle account"):
        download.data_set(settings, tmp_path / "m.json", print)
    (tmp_path / "kaggle.json").write_text("{}")
    assert download.obstacle(settings) is None


def test_every_registered_file_says_what_must_be_known():
    for name, entry in download.registry().items():
        assert {"title", "home", "licence", "citation", "sources"} <= set(entry), name
        for files in entry["sources"].values():
            for file in files:
                assert len({"http", "drive", "kaggle"} & set(file)) == 1
                assert {"hash", "size_mb"} <= set(file)
                assert ("unpack" in file) != ("save" in file)
                assert file["hash"] is None or file["hash"].split(":")[0] in ("md5", "sha256")
