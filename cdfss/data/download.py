"""Downloads of the registered data sets and of backbone weights: resumed, checked, whole or not there.

Our own, since pooch 1.9 and fsspec 2026.9 begin anew when a connection breaks; archives have up to 2 GB.
"""

import errno
import json
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import time
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import urlsplit, urlunsplit

from cdfss.backbones.facts import facts_of, how_to_get
from cdfss.data import places
from cdfss.errors import CdfssError
from cdfss.running.files import FORBIDDEN, FULL, file_hash, free_bytes, replacing

TIMEOUT = (10.0, 30.0)  # seconds until a server is reached, and without a byte from it
CHUNK = 1 << 16  # bytes; what a broken connection loses at most
ATTEMPTS = 5  # connections in a row that bring nothing new before giving up
UNREACHED = 2  # the same for a server that has not answered once

DRIVE = "https://drive.google.com/uc?id="

GB = 1e9  # bytes
BOMB_BYTES = 10**9  # an archive that states less does no harm
BOMB_RATIO = 200  # bytes stated for each of the archive: pictures about 1, a bomb of one layer 1000
MEMBERS = 1_000_000  # of one archive; the largest registered one has some 40 000
NAME_BYTES = 1 << 20  # of the long names in a tar, which tarfile reads into memory at once
TAIL_BYTES = 100 << 20  # after the end mark of a tar; usually 10 kB of zeros

CLASH = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR)
# What the readers of archives raise for damaged content. An OSError without a number is one of them too.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    LookupError,
    RecursionError,
)


class _Failed(Exception):
    """Why an address did not give its file."""


def source_of(settings: dict) -> list[dict]:
    """Files of the registered source that a data set's settings choose.

    Raises:
        CdfssError: for a source that is not registered.
    """
    sources = places.registry()[settings["format"]]["sources"]
    name = places.source_name(settings)
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


def _kaggle_folder() -> Path:
    return Path(os.environ.get("KAGGLE_CONFIG_DIR", Path.home() / ".kaggle"))


def _kaggle_account() -> bool:
    environment = {"KAGGLE_USERNAME", "KAGGLE_KEY"} <= set(os.environ)
    token = "KAGGLE_API_TOKEN" in os.environ
    files = [_kaggle_folder() / name for name in ("kaggle.json", "access_token")]
    return environment or token or any(file.is_file() for file in files)


def data_set(settings: dict, marker: str | Path, log=print) -> None:
    """Download and unpack a data set into `raw` of its home; write `marker` when all is there.

    Everything is put together in `raw.partial`, which takes the place of `raw` at the end. Archives
    are kept until the marker is written, so that a killed job goes on where it was.

    Raises:
        CdfssError: names the file, what went wrong and what to do.
    """
    reason = obstacle(settings)
    if reason:
        raise CdfssError(reason)
    base = places.home(settings)
    archives, raw, partial, chosen = (base / n for n in ("archives", "raw", "raw.partial", "source.json"))
    files = source_of(settings)
    entry = places.registry()[settings["format"]]
    registered = [file | {"http": [shown(a) for a in _addresses(file)]} for file in files]
    with _disk(base):
        if _stored(chosen, log) not in (None, registered):
            _remove(archives)  # the registry has changed, and a name may mean another file now
        with replacing(chosen) as temporary:
            temporary.write_text(json.dumps(registered) + "\n")
        archives.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        partial.mkdir()
        try:
            record = [_fetch(file, archives, partial, log) for file in files]
            Path(marker).unlink(missing_ok=True)
            if raw.is_symlink():
                log(f"{raw} was a link to {os.readlink(raw)}; the link is removed, its target stays")
            _remove(raw)
            partial.rename(raw)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # on a full disk its room is needed
        facts = {"title": entry["title"], "licence": entry["licence"], "citation": entry["citation"]}
        with replacing(marker) as temporary:
            temporary.write_text(json.dumps(facts | {"files": record}, indent=1) + "\n")
        _remove(archives)


def _stored(path: Path, log):
    """What a JSON file holds, or None where it is not there or broken."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        log(f"{path} is broken and taken as not there")
        return None


def _remove(path: Path) -> None:
    """Remove a file, a folder or a link, but never what a link points to."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


@contextmanager
def _disk(path: Path):
    """Say for people what went wrong when `path`, or a file in it, was written.

    Raises:
        CdfssError: for an error of the file system.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a connection, or of what is read from an archive
            raise
        place = error.filename or path
        text = f"{place}: {error.strerror}"
        if error.errno in FULL:
            written = os.path.getsize(place) if os.path.isfile(place) else 0
            text += (
                f" after {written} bytes; {free_bytes(path) / GB:.2f} GB are free on its disk. Make room, "
                "see to your quota, or set folder in the configuration to a place on another disk"
            )
        elif error.errno == errno.ENAMETOOLONG:
            text += ". Set folder in the configuration to a shorter path, or to where names may be longer"
        elif error.errno in FORBIDDEN:
            text += ". Make it writable, or set folder in the configuration to a place that is"
        elif error.errno in CLASH:
            text += ". A file is where a folder must be, or the reverse; remove it"
        else:
            text += ". See to the disk"
        raise CdfssError(f"{text}. Then run again: what was downloaded is kept") from error


def shown(address: str) -> str:
    """An address for logs, errors and records: without user, password and query, which may be a key."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "***"
    query = parts.query
    if query and not re.fullmatch(r"id=[\w-]+", query):  # the name of a public file on Google Drive
        query = "***"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def _without_secrets(error: Exception) -> str:
    """The text of another library's error, with *** for the user's Kaggle keys and in addresses."""
    token = os.environ.get("KAGGLE_API_TOKEN", "")
    secrets = [os.environ.get("KAGGLE_KEY", ""), token]
    folders = {_kaggle_folder(), Path.home() / ".kaggle"}
    files = [folder / name for folder in folders for name in ("access_token", "access_token.txt")]
    for file in [*files, Path(token)]:  # the token may also be the name of a file that has it
        with suppress(OSError, ValueError):
            secrets.append(file.read_text().strip())
    with suppress(OSError, ValueError, LookupError, TypeError):
        secrets.append(str(json.loads((_kaggle_folder() / "kaggle.json").read_text())["key"]))
    text = str(error)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one may be part of another
        text = text.replace(secret, "***")
    return re.sub(r"\w+://\S+", lambda found: shown(found[0]), text)


def _addresses(file: dict) -> list[str]:
    """The http addresses of a registered file; one is stated plainly, mirrors as a list."""
    stated = file.get("http", [])
    return [stated] if isinstance(stated, str) else stated


def _fetch(file: dict, archives: Path, raw: Path, log) -> dict:
    """Get one registered file and put it where it belongs below `raw`; returns what came."""
    if "kaggle" in file:
        return _fetch_kaggle(file["kaggle"], raw, log)
    addresses = _addresses(file)
    name = file.get("name") or PurePosixPath(urlsplit(addresses[0]).path).name
    target = archives / name
    origins = [shown(a) for a in addresses] or [DRIVE + file["drive"]]
    if target.is_file():
        wrong = _wrong_hash(target, file["hash"])
        if wrong:
            raise CdfssError(f"{target}: {wrong}. Remove it and run again to download it")
    else:
        log(f"downloading {origins[0]}" + (f", {file['size_mb']} MB" if file["size_mb"] else ""))
        if addresses:
            http(addresses, target, file["hash"], log)
        else:
            _fetch_drive(file["drive"], target, file["hash"])
    found = file_hash(target)
    if file["hash"] is None:
        log(f"{name}: sha256 {found} (none is published to compare with)")
    if "save" in file:
        shutil.copyfile(target, _inside(raw, raw / file["save"]))
    else:
        _unpack(target, _inside(raw, raw / file["unpack"]), log)
    return {"origin": " or ".join(origins), "sha256": found}


def _inside(root: Path, path: Path) -> Path:
    """`path`, with its folder made; refused where a link leads it out of `root`."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise CdfssError(f"{path} leads out of {root} through a link; nothing was written to it")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _fetch_drive(identity: str, target: Path, known_hash: str | None) -> None:
    import gdown

    # gdown leaves its parts behind when it fails; in a folder of their own they do not pile up.
    with _disk(target), tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = Path(folder) / target.name
        try:
            came = gdown.download(id=identity, output=str(part), quiet=True) is not None
            reason = _wrong_hash(part, known_hash) if came else "no file came"
        except Exception as error:  # gdown passes on many kinds
            if isinstance(error, OSError) and error.errno in FULL + FORBIDDEN:
                raise
            reason = _without_secrets(error)
        if reason:
            raise CdfssError(
                f"Google Drive file {identity} ({target.name}): {reason}. Its daily quota may be used up: "
                f"try later, or open {DRIVE}{identity} in a browser and save it as {target}"
            )
        os.replace(part, target)


def _fetch_kaggle(handle: str, raw: Path, log) -> dict:
    import kagglehub

    log(f"downloading Kaggle data set {handle}")
    try:
        folder = Path(kagglehub.dataset_download(handle)).resolve()
    except Exception as error:  # kagglehub passes on many kinds
        raise CdfssError(
            f"Kaggle data set {handle}: {_without_secrets(error)}. Accept its terms on kaggle.com when "
            "asked to, or download it by hand and set data.<name>.root to the unpacked folder"
        ) from None  # the cause would show the key
    for path in folder.iterdir():
        (raw / path.name).symlink_to(path)  # kagglehub keeps its own copy; a second one is not needed
    return {"origin": f"https://www.kaggle.com/datasets/{handle}", "folder": str(folder)}


# Archives. They come from others and may be damaged, or made to do harm: only plain files and
# folders are written, each below the target folder, never more than was stated and fits the disk.


def _unpack(archive: Path, folder: Path, log) -> None:
    """Unpack a zip or tar archive, whatever its name, into `folder`; links and devices are left out.

    Raises:
        CdfssError: names what is wrong. A damaged archive, or a page in place of one, is removed, to
            be downloaded again; for all other reasons it is kept.
    """
    log(f"unpacking {archive.name}")
    try:
        # A tar may end in a zip, and then looks like one too.
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive, tarinfo=_Header) as file:
                _extract(archive, _in_tar(file), file.extractfile, folder, log)
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                _extract(archive, _in_zip(file), file.open, folder, log)
        else:
            raise tarfile.ReadError(_what_it_is(archive))
        return
    except DAMAGE as error:
        reason = str(error)
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # EINVAL: a place before the beginning was looked up
            raise CdfssError(
                f"{archive} cannot be read ({error.strerror}) and was kept; see to its disk and run again"
            ) from error
        reason = str(error)
    except MemoryError as error:
        raise CdfssError(f"{archive} needs more memory than there is. {_by_hand(archive)}") from error
    except RuntimeError as error:  # a compression that is unknown, or was not built into this Python
        raise CdfssError(f"{archive} cannot be unpacked here ({error}). {_by_hand(archive)}") from error
    archive.unlink()
    raise CdfssError(
        f"{archive} cannot be unpacked ({' '.join(reason.split())}) and was removed; run again to download "
        "it again, or unpack a copy of your own by hand and set data.<name>.root to its folder"
    )


def _by_hand(archive: Path) -> str:
    return (
        f"It was kept. If you trust {archive.name}, unpack it by hand and set data.<name>.root to the "
        "folder; if not, remove it and run again"
    )


def _what_it_is(archive: Path) -> str:
    with archive.open("rb") as file:
        head = file.read(200)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        text = " ".join(head.decode("utf-8", "replace").split())[:60]
        return f"it is a web page, {text!r}: the link asks for a log-in or a quota is used up"
    if head.startswith(b"PK"):
        return "it is a zip archive whose end is missing"
    return f"it is neither zip nor tar, and begins with {head[:16]!r}"


class _Header(tarfile.TarInfo):
    """A header of a tar; a broken one is an error, where tarfile alone takes it for the end."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the true end mark
            raise tarfile.ReadError(f"it is damaged or breaks off: {error}") from error
        names = (
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
        )
        if header.type in names and header.size > NAME_BYTES:
            raise tarfile.ReadError(f"a name of {header.size} bytes")
        return header


def _in_tar(file: tarfile.TarFile):
    """Name, stated bytes, kind and member of everything in a tar, which is read to its end."""
    for member in file:
        if member.size < 0:
            raise tarfile.ReadError(f"{member.name!r} states {member.size} bytes")
        kind = "file" if member.isreg() else "folder" if member.isdir() else "other"
        yield member.name, member.size, kind, member
    # Only at the very end of a compressed file is its checksum compared.
    for _ in range(TAIL_BYTES // CHUNK):
        if not file.fileobj.read(CHUNK):
            break


def _in_zip(file: zipfile.ZipFile):
    """Name, stated bytes, kind and member of everything in a zip."""
    for member in file.infolist():
        name = member.filename.replace("\\", "/")  # some Windows programs write these
        if member.flag_bits & 1:
            raise CdfssError(
                f"{file.filename}: {name!r} is encrypted, and no password is known. "
                f"{_by_hand(Path(file.filename))}"
            )
        mode = stat.S_IFMT(member.external_attr >> 16)  # 0 where the writer knows no modes
        kind = "folder" if name.endswith("/") or mode == stat.S_IFDIR else "file"
        if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            kind = "other"
        yield name, member.file_size, kind, member


def _extract(archive: Path, members, open_member, folder: Path, log) -> None:
    """Write the files of an archive below `folder`, after a look at all names and sizes."""
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free, size = free_bytes(folder), archive.stat().st_size
    wanted, left_out, stated = [], [], 0
    for number, (name, count, kind, member) in enumerate(members, start=1):
        stated += count
        _refuse_bomb(archive, number, stated, size, free)
        if kind == "other":
            left_out.append(name)
        else:
            wanted.append((folder.joinpath(*_parts(archive, name, kind)), count, kind, member))
    if not any(kind == "file" for *_, kind, _ in wanted):
        raise tarfile.ReadError("it holds no file")
    if left_out:
        names = ", ".join(repr(name) for name in left_out[:3])
        log(f"{archive.name}: {len(left_out)} links or devices are left out, the first are {names}")
    for path, count, kind, member in wanted:
        if kind == "folder":
            with _disk(path):
                _inside(folder, path).mkdir(exist_ok=True)
            continue
        # Both readers end at the stated size; that of a zip raises when the checksum is wrong.
        with open_member(member) as source, _disk(path), open(_inside(folder, path), "wb") as target:
            shutil.copyfileobj(source, target, CHUNK)
            written = target.tell()
        if written != count:
            raise EOFError(f"{path.name} has {written} bytes where {count} are stated")


def _parts(archive: Path, name: str, kind: str) -> tuple[str, ...]:
    """Folders and file name of a member; refused if they lead elsewhere or cannot be a file's name."""
    path = PureWindowsPath(name)  # it knows both slashes, and drives
    try:
        possible = bool(path.parts or kind == "folder") and b"\0" not in os.fsencode(name)
    except UnicodeError:
        possible = False
    if path.anchor or ".." in path.parts or not possible:
        raise CdfssError(
            f"{archive}: member {name!r} is no name of a file inside the archive's folder; nothing was "
            f"unpacked. {_by_hand(archive)}"
        )
    return path.parts


def _refuse_bomb(archive: Path, members: int, stated: int, size: int, free: int) -> None:
    """Refuse an archive of so many members and stated bytes that it would fill the disk.

    Args:
        size: of the archive, bytes.
        free: on the disk, bytes.
    """
    if members > MEMBERS:
        raise CdfssError(f"{archive} has more than {MEMBERS} members. {_by_hand(archive)}")
    if stated > max(BOMB_BYTES, BOMB_RATIO * size):
        raise CdfssError(
            f"{archive} of {size / GB:.4f} GB states at least {stated / GB:.1f} GB, {stated / size:.0f} "
            f"times its size; more than {BOMB_RATIO} times is refused as a bomb. {_by_hand(archive)}"
        )
    if stated > free:
        raise CdfssError(
            f"{archive} states at least {stated / GB:.3f} GB, and {free / GB:.3f} GB are free on the disk; "
            "make room, or set folder in the configuration to a place on another disk, and run again. The "
            "archive was kept"
        )


# Connections.


def http(addresses: str | list[str], target: Path, known_hash: str | None, log=print) -> None:
    """Download `target` from the first of `addresses` that gives it; an earlier part is continued.

    Args:
        addresses: one, or mirrors of one file.
        known_hash: "md5:..." or "sha256:..."; a sha256 may be given by its first digits. Without one
            a part is never continued from another mirror.

    Raises:
        CdfssError: when every address fails: the server answers with an error, the connection keeps
            breaking, or the hash is wrong (what came is then removed). Also when the disk is full.
    """
    addresses = [addresses] if isinstance(addresses, str) else addresses
    part = target.with_name(target.name + ".part")
    failures = []
    with _disk(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        for number, address in enumerate(addresses, start=1):
            if known_hash is None and len(addresses) > 1:
                part.unlink(missing_ok=True)  # of which mirror it is, and whether they agree, is unknown
            try:
                _get_checked(address, part, known_hash, log)
            except _Failed as error:
                failures.append(f"{shown(address)}: {error}")
                if number < len(addresses):
                    log(f"{failures[-1]}; trying {shown(addresses[number])}")
            else:
                os.replace(part, target)
                return
    have = _size(part)
    again = f"Run again to go on from the {have} bytes that are there" if have else "Run again later"
    raise CdfssError(
        f"{'; '.join(failures)}. {again}, or save the file by hand as {target}; if the publisher moved or "
        "changed it, get the data set by hand and set data.<name>.root (docs/explanation/data.md)"
    )


def _get_checked(address: str, part: Path, known_hash: str | None, log) -> None:
    """Complete `part` from one address; if it was continued and is wrong, once more from the start."""
    continued = _size(part) > 0
    _get(address, part)
    wrong = _wrong_hash(part, known_hash)
    if wrong and continued:
        log(f"{part.name}: {wrong}; it was put together from two downloads and is loaded anew")
        part.unlink()
        _get(address, part)
        wrong = _wrong_hash(part, known_hash)
    if wrong:
        part.unlink()
        raise _Failed(f"{wrong}; the file was removed")


def _wrong_hash(path: Path, known_hash: str | None) -> str | None:
    """What is wrong with a file's hash, or None."""
    if known_hash is None:
        return None
    kind, wanted = known_hash.split(":")
    found = file_hash(path, kind)
    if found.startswith(wanted):
        return None
    return f"{kind} of its {_size(path)} bytes is {found}, expected {wanted}"


def _size(path: Path) -> int:
    """Bytes of a file, 0 for none."""
    return path.stat().st_size if path.exists() else 0


def _get(address: str, part: Path) -> None:
    """Complete `part` from one address in as many connections as it takes."""
    silent, reached = 0, False
    while True:
        before = _size(part)
        reason, answered = _continue(address, part)
        if reason is None:
            return
        reached = reached or answered
        silent = 0 if _size(part) > before else silent + 1
        if silent >= (ATTEMPTS if reached else UNREACHED):
            raise _Failed(f"{reason}; gave up after {silent} attempts without a new byte")
        time.sleep(min(2**silent, 30) * 0.1)


def _continue(address: str, part: Path) -> tuple[str | None, bool]:
    """Append what is missing to `part`: why it is not whole (None: it is), whether the server answered."""
    import requests

    have = _size(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    answered = False
    try:
        with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            answered = True
            if answer.status_code == 416:  # nothing is left, or the part is longer than the file
                total = answer.headers.get("Content-Range", "").rpartition("/")[2]
                if total == str(have):
                    return None, True
                part.unlink()
                return "the part that was there did not fit and was removed", True
            status = f"the server answers {answer.status_code} {answer.reason}"
            if 400 <= answer.status_code < 500:
                raise _Failed(status)
            if answer.status_code >= 500:
                return status, True
            resumed = answer.status_code == 206
            expected = answer.headers.get("Content-Length", "")
            total = int(expected) + (have if resumed else 0) if expected.isdecimal() else None
            with _disk(part), part.open("ab" if resumed else "wb") as file:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
    except requests.RequestException as error:
        what = "the connection broke" if answered else "no connection"
        return f"{what} ({type(error).__name__})", answered
    size = _size(part)
    if total is not None and size < total:
        return f"the connection ended after {size} of {total} bytes", True
    return None, True


def backbone(name: str, target: str | Path, log=print) -> None:
    """Download the published weights of a backbone.

    Raises:
        CdfssError: as `http`; when nobody has published the file's hash and its size is another; and for
            weights that are given to those alone who agree to their licence.
    """
    facts, target = facts_of(name), Path(target)
    if facts.gated:
        raise CdfssError(f"weights of {name}: {how_to_get(name, target)}")
    log(f"weights of {name}: {facts.megabytes} MB from {facts.url}; licence: {facts.licence}")
    http(facts.url, target, facts.sha256 and f"sha256:{facts.sha256}", log)
    size = _size(target)
    if facts.sha256 is None and abs(size / 1e6 - facts.megabytes) > 1:
        target.unlink()
        raise CdfssError(
            f"{facts.url} gave {size} bytes, expected {facts.megabytes} MB; the file was removed. Run "
            f"again later, or save the file by hand as {target}"
        )


def backbone_obstacle(name: str, target: str | Path) -> str | None:
    """Why the weights of a backbone, which are not at `target`, cannot be downloaded, or None."""
    if facts_of(name).gated and not Path(target).is_file():
        return f"weights of {name}: {how_to_get(name, target)}"
    return None
