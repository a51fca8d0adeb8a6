"""What a name of weights means: where the file is, what its checksum is, where it lies in the cache."""

import difflib
import hashlib
import ipaddress
import os
import re
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from sniper.errors import DownloadError

HUB = "https://huggingface.co"
KNOWN = (
    "a network of torchvision (resnet50, fcos_resnet50_fpn), timm/<model>, hf:OWNER/REPO[/FILE][@REVISION] or an "
    "https:// address"
)
_DIGITS_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")
_HUB_FILE = "model.safetensors"
_HUB_PART = re.compile(r"[\w.-]+")


class Source(NamedTuple):
    """One file on a server."""

    name: str  # as the user gave it
    url: str
    place: PurePosixPath  # in the cache folder
    sha256: str | None  # the checksum or its first digits, lower case; None: not known before the server is asked
    hub: bool = False  # the server is a Hugging Face hub, which tells checksums in headers


def resolve(name: str, sha256: str | None = None) -> Source:
    """The file that ``name`` means: default weights of torchvision's networks (with or without ``torchvision/``),
    ``timm/<model>``, ``hf:OWNER/REPO[/FILE][@REVISION]`` (``model.safetensors`` where no file is named) or an address.

    ``sha256`` (64 hexadecimal digits) takes the place of the checksum that the name itself tells. Asks no server.

    Raises:
        DownloadError: the name or the checksum is none.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise DownloadError(f"--sha256 {sha256}: expected 64 hexadecimal digits")
    checksum = sha256.lower() if sha256 else None
    if name.startswith("hf:"):
        source = _hub(name)
    elif re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", name):
        source = _address(name, checked=checksum is not None)
    elif name.startswith("timm/"):
        source = _timm(name)
    else:
        source = _torchvision(name)
    return source._replace(sha256=checksum) if checksum else source


def _torchvision(name: str) -> Source:
    model = name.removeprefix("torchvision/")
    if not re.fullmatch(r"\w+", model):
        raise DownloadError(f"no weights are called {name!r}: expected {KNOWN}")
    import torchvision

    known = [
        *torchvision.models.list_models(module=torchvision.models),
        *torchvision.models.list_models(module=torchvision.models.detection),
    ]
    if model not in known:
        close = difflib.get_close_matches(model, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise DownloadError(f"no weights are called {name!r}: expected {KNOWN}{hint}")
    url: str = torchvision.models.get_model_weights(model).DEFAULT.url
    digits = _DIGITS_IN_NAME.search(_file_of(url))
    return Source(name, url, PurePosixPath("torchvision", _file_of(url)), digits.group(1) if digits else None)


def _timm(name: str) -> Source:
    import timm

    model = name.removeprefix("timm/")
    settings = timm.get_pretrained_cfg(model) if timm.is_model(model.split(".")[0]) else None
    if settings is None:
        close = difflib.get_close_matches(model, timm.list_models(), n=1)
        hint = f"; did you mean timm/{close[0]}?" if close else ""
        raise DownloadError(f"timm has no model {model!r} with weights{hint}")
    if settings.hf_hub_id:
        file = settings.hf_hub_filename or _HUB_FILE
        return _hub(f"hf:{settings.hf_hub_id}/{file}")._replace(name=name)
    if not settings.url:
        raise DownloadError(f"timm has no weights for {model!r}; choose a model of timm.list_pretrained()")
    return _address(settings.url, checked=False)._replace(name=name)


def _hub(name: str) -> Source:
    path, _, revision = name.removeprefix("hf:").partition("@")
    parts = path.split("/")
    usable = all(_HUB_PART.fullmatch(part) and part.strip(".") for part in parts)
    if len(parts) < 2 or not usable or (revision and not all(part.strip(".") for part in revision.split("/"))):
        raise DownloadError(f"{name}: expected hf:OWNER/REPO, then /FILE and @REVISION if need be")
    repo, file, revision = "/".join(parts[:2]), "/".join(parts[2:]) or _HUB_FILE, revision or "main"
    url = f"{hub_address()}/{quote(repo)}/resolve/{quote(revision, safe='')}/{quote(file)}"
    return Source(name, url, PurePosixPath("hf", repo, quote(revision, safe=""), file), None, hub=True)


def hub_address() -> str:
    """The Hugging Face hub: ``HF_ENDPOINT``, as the hub's own clients read it, or the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB


def _address(url: str, *, checked: bool) -> Source:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DownloadError(f"{url}: only https:// addresses can be fetched")
    if parts.scheme == "http" and not checked and not _is_here(parts.hostname):
        raise DownloadError(f"{url}: anyone on the way can change what http:// brings; use https:// or give --sha256")
    # Two addresses may end in the same file name: each gets a folder of its own.
    own = hashlib.sha256(url.encode()).hexdigest()[:12]
    return Source(url, url, PurePosixPath("url", own, _file_of(url)), None)


def _file_of(url: str) -> str:
    name = re.sub(r"[^\w.-]", "_", unquote(PurePosixPath(urlsplit(url).path).name))
    return name if name.strip(".") else "weights"


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
