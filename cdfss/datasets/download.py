"""Downloads of the registered data sets and of backbone weights: resumed, checked, whole or not there."""

import json
import os
import shutil
import time
import zipfile
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from cdfss.backbone_facts import BACKBONES
from cdfss.errors import CdfssError
from cdfss.files import file_hash, replacing

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 16  # bytes; what a broken connection loses at most
ATTEMPTS = 5  # connections in a row that bring nothing new before giving up


@cache
def registry() -> dict:
    """The registry of public data sets by format."""
    return yaml.safe_load(resources.files("cdfss.datasets").joinpath("registry.yaml").read_text())


def source_of(settings: dict) -> list[dict]:
    """Files of the registered source that a data set's settings choose.

    Raises:
        CdfssError: for a source that is not registered.
    """
    sources = registry()[settings["format"]]["sources"]
    name = settings["download"] or next(iter(sources))
    if name not in sources:
        raise CdfssError(
            f"data.{settings['name']}.download is {name!r}; registered are {', '.join(sources)}"
        )
    return sources[name]


def obstacle(settings: dict) -> str | None:
    """Why the chosen source cannot be downloaded without the user, in steps, or None."""
    handles = [file["kaggle"] for file in source_of(settings) if "kaggle" in file]
    if not handles or _kaggle_account():
        return None
    name, handle = settings["name"], handles[0]
    return (
        f"data.{name}: needs a Kaggle account. Either\n"
        "    1. sign in at kaggle.com, Settings, API, Create New Token;\n"
        "    2. put the file at ~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY;\n"
        "    3. run again;\n"
        f"  or download https://www.kaggle.com/datasets/{handle} by hand, unpack it and set "
        f"data.{name}.root to the folder"
    )


def _kaggle_account() -> bool:
    environment = {"KAGGLE_USERNAME", "KAGGLE_KEY"} <= set(os.environ)
    token = "KAGGLE_API_TOKEN" in os.environ
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR", Path.home() / ".kaggle"))
    return environment or token or any((folder / f).is_file() for f in ("kaggle.json", "access_token"))


def data_set(settings: dict, marker: str | Path, log=print) -> None:
    """Download and unpack a data set into <folder>/<name>/raw; write `marker` when all is there.

    Archives are kept until the marker is written, so that a killed job goes on where it was.

    Raises:
        CdfssError: names the file, what went wrong and what to do.
    """
    reason = obstacle(settings)
    if reason:
        raise CdfssError(reason)
    base = Path(settings["folder"]) / settings["name"]
    archives, raw, chosen = base / "archives", base / "raw", base / "source.json"
    files = source_of(settings)
    if chosen.is_file() and json.loads(chosen.read_text()) != files:
        shutil.rmtree(raw, ignore_errors=True)  # of another source; layouts must not mix
        shutil.rmtree(archives, ignore_errors=True)
    with replacing(chosen) as temporary:
        temporary.write_text(json.dumps(files) + "\n")
    archives.mkdir(parents=True, exist_ok=True)
    raw.mkdir(parents=True, exist_ok=True)
    record = []
    for file in files:
        record.append(_fetch(file, archives, raw, log))
    entry = registry()[settings["format"]]
    facts = {"title": entry["title"], "licence": entry["licence"], "citation": entry["citation"]}
    with replacing(marker) as temporary:
        temporary.write_text(json.dumps(facts | {"files": record}, indent=1) + "\n")
    shutil.rmtree(archives)


def _fetch(file: dict, archives: Path, raw: Path, log) -> dict:
    """Get one registered file and put it where it belongs; returns what came."""
    if "kaggle" in file:
        return _fetch_kaggle(file["kaggle"], raw, log)
    name = file.get("name") or (file.get("http") or "").rsplit("/", 1)[-1]
    target = archives / name
    origin = file.get("http") or f"https://drive.google.com/uc?id={file['drive']}"
    if not target.is_file():
        log(f"downloading {origin}" + (f", {file['size_mb']} MB" if file["size_mb"] else ""))
        if "http" in file:
            http(file["http"], target, file["hash"])
        else:
            _fetch_drive(file["drive"], target)
    found = file_hash(target)
    if file["hash"] is None:
        log(f"{name}: sha256 {found} (none is published to compare with)")
    if "save" in file:
        with replacing(raw / file["save"]) as temporary:
            shutil.copyfile(target, temporary)
    else:
        _unpack(target, raw / file["unpack"], log)
    return {"origin": origin, "sha256": found}


def _unpack(archive: Path, folder: Path, log) -> None:
    log(f"unpacking {archive.name}")
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                file.extractall(folder)  # ignores absolute paths and ".." by itself
        else:
            shutil.unpack_archive(archive, folder, filter="data")
    except Exception as error:  # zipfile, tarfile and zlib raise many kinds for a bad archive
        archive.unlink()
        raise CdfssError(
            f"{archive.name} cannot be unpacked ({error}) and was removed; run again to download it "
            "again. If it was a web page, the link asks for a log-in or a quota is used up"
        ) from error


def _fetch_drive(identity: str, target: Path) -> None:
    import gdown

    try:
        with replacing(target) as temporary:
            if gdown.download(id=identity, output=str(temporary), quiet=True) is None:
                raise CdfssError("no file came")
    except Exception as error:  # gdown passes on many kinds
        raise CdfssError(
            f"Google Drive file {identity} ({target.name}): {error}. Its daily quota may be used up: try "
            f"later, or open https://drive.google.com/uc?id={identity} in a browser and save it as {target}"
        ) from error


def _fetch_kaggle(handle: str, raw: Path, log) -> dict:
    import kagglehub

    log(f"downloading Kaggle data set {handle}")
    try:
        folder = kagglehub.dataset_download(handle)
    except Exception as error:  # kagglehub passes on many kinds
        raise CdfssError(
            f"Kaggle data set {handle}: {error}. Accept its terms on kaggle.com when asked to, or "
            "download it by hand and set data.<name>.root to the unpacked folder"
        ) from error
    # kagglehub keeps its own copy; a second one is not needed.
    for path in Path(folder).iterdir():
        link = raw / path.name
        link.unlink(missing_ok=True)  # it may point to a copy that is gone
        link.symlink_to(path)
    return {"origin": f"https://www.kaggle.com/datasets/{handle}", "folder": str(folder)}


def http(url: str, target: Path, known_hash: str | None) -> None:
    """Download `url` to `target`; a part that an earlier attempt left is continued.

    Args:
        known_hash: "md5:..." or "sha256:..."; a sha256 may be given by its first digits.

    Raises:
        CdfssError: when the server answers with an error, the connection keeps breaking, or the
            hash is wrong (the file is then removed).
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    silent = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        finished, reason = _continue(url, part)
        if finished:
            break
        silent = 0 if part.exists() and part.stat().st_size > before else silent + 1
        if silent >= ATTEMPTS:
            raise CdfssError(
                f"{url}: {reason}; gave up after {ATTEMPTS} attempts without a new byte. Run again to go "
                f"on from the {before} bytes that are there, or save the file by hand as {target}"
            )
        time.sleep(min(2**silent, 30) * 0.1)
    if known_hash is not None:
        kind, wanted = known_hash.split(":")
        found = file_hash(part, kind)
        if not found.startswith(wanted):
            size = part.stat().st_size
            part.unlink()
            raise CdfssError(
                f"{url}: {kind} of the {size} bytes that came is {found}, expected {wanted}; the file was "
                "removed. Run again; if it stays so, the publisher changed the file"
            )
    os.replace(part, target)


def _continue(url: str, part: Path) -> tuple[bool, str]:
    """Append what is missing of `url` to `part`: whether it is whole now, and why not."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:  # nothing is left, or the part is longer than the file
                total = answer.headers.get("Content-Range", "").rpartition("/")[2]
                if total == str(have):
                    return True, ""
                part.unlink()
                return False, "the part that was there did not fit and was removed"
            if 400 <= answer.status_code < 500:
                raise CdfssError(
                    f"{url}: the server answers {answer.status_code} {answer.reason}; the address may have "
                    "changed. Get the data set by hand and set data.<name>.root (docs/data.md)"
                )
            if answer.status_code >= 500:
                return False, f"the server answers {answer.status_code} {answer.reason}"
            resumed = answer.status_code == 206
            expected = answer.headers.get("Content-Length")
            total = None if expected is None else int(expected) + (have if resumed else 0)
            with part.open("ab" if resumed else "wb") as file:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
    except requests.RequestException as error:
        return False, f"the connection broke ({type(error).__name__})"
    size = part.stat().st_size
    if total is not None and size < total:
        return False, f"the connection ended after {size} of {total} bytes"
    return True, ""


def backbone(name: str, target: str | Path) -> None:
    """Download torchvision's ImageNet weights of a backbone."""
    facts = BACKBONES[name]
    http(facts.url, Path(target), f"sha256:{facts.sha256_prefix}")
