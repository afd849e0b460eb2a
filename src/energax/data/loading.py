"""Finding, fetching and loading data sets by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pooch

from energax.checking import find_named
from energax.data.archives import MOST_BYTES, unpack
from energax.data.arrays import Dataset
from energax.data.catalogue import DATASETS, Source
from energax.data.fetch import Remote, download, is_whole, md5_of
from energax.exceptions import DataError
from energax.opening import as_folder, is_file, is_folder

_OFFICIAL = "official"


@dataclass(frozen=True)
class _Place:
    """Where a data set was found: a folder to read, or an archive to unpack first."""

    kind: Literal["package", "folder", "archive", "cache"]
    path: Path


def available() -> tuple[str, ...]:
    """Return the names that `load_data` knows."""
    return tuple(DATASETS)


def load_data(
    name: str | Source,
    root: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    progress: bool = True,
) -> Dataset:
    """Load a data set into memory.

    It is looked for in `root` (or, if that is left out, in the folder that the environment variable
    ENERGAX_DATA names), in the official layout, unpacked or as the official archive; then in the cache folder
    (ENERGAX_CACHE, or the system's folder for caches); then it is downloaded into the cache.

    Files found in `root` are checked for their structure, and any difference from the official checksums is
    stated in the result's `checksums`. Downloaded files must have the official checksum.

    Args:
        name: One of `available()`, or the `Source` of another data set.
        root: Folder that holds data sets, each in its own folder.
        download: Whether to download what is not found.
        progress: Whether to show progress bars on the error stream.

    Returns:
        The data set: uint8 images `(N, H, W, C)` and int32 labels `(N,)` in three splits.

    Raises:
        DataError: If the name or the folder is unknown, a file is broken, or the data set is neither found
            nor downloaded; the message lists where it was looked for and what to do.

    Examples:
        >>> load_data("digits").train.images.shape
        (1297, 8, 8, 1)

    """
    source = _source(name)
    place = _find(source, root)
    folder, origin, checksums = _ready(source, place, root, download, progress)
    train, validation, test = source.reader.read(folder, progress=progress)
    if checksums is None:  # after reading, which has refused files of absurd sizes
        checksums = _compare(source, folder)
    return Dataset.from_arrays(
        source.name,
        train=(train.images, train.labels),
        validation=(validation.images, validation.labels),
        test=(test.images, test.labels),
        classes=source.classes,
        scale=source.scale,
        augmentation=source.augmentation,
        origin=origin,
        checksums=checksums,
    )


def describe(name: str | Source, root: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Describe a data set without reading its pixels or fetching anything.

    Args:
        name: As for `load_data`.
        root: As for `load_data`.

    Returns:
        A dictionary with `name`, `title`, `where` (what `load_data` would read, or that it needs a download),
        `found` (whether it is on this machine), `sizes` (rows of `train`, `validation` and `test`, counted
        where found, else the official ones), `official_sizes`, `classes`, `image_shape`, `scale`,
        `augmentation`, `download_megabytes`, `terms`, `citation` and `homepage`.

    Raises:
        DataError: If the name or the folder is unknown or the files found are visibly broken.

    """
    source = _source(name)
    place = _find(source, root)
    sizes = source.sizes
    if place is None:
        where = f"needs a download of {source.megabytes:g} MB into {cache_folder()}"
    elif place.kind == "archive":
        where = f"{place.path}, to be unpacked into {cache_folder()}"
    else:
        where = "inside the package" if place.kind == "package" else str(place.path)
        sizes = source.reader.count(place.path)
    return {
        "name": source.name,
        "title": source.title,
        "where": where,
        "found": place is not None,
        "sizes": sizes._asdict(),
        "official_sizes": source.sizes._asdict(),
        "classes": source.classes,
        "image_shape": source.image_shape,
        "scale": source.scale,
        "augmentation": {"flip": source.augmentation.flip, "pad": source.augmentation.pad},
        "download_megabytes": source.megabytes,
        "terms": source.terms,
        "citation": source.citation,
        "homepage": source.homepage,
    }


def cache_folder() -> Path:
    """Return the folder for downloads: ENERGAX_CACHE, or the system's folder for caches."""
    return as_folder("ENERGAX_CACHE", os.environ.get("ENERGAX_CACHE") or pooch.os_cache("energax"))


def _source(name: str | Source) -> Source:
    if isinstance(name, Source):
        return name
    return find_named("data set", name, DATASETS, DataError)


def _data_folder(root: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder given as `root` or by ENERGAX_DATA, None if neither is."""
    given = os.environ.get("ENERGAX_DATA") or None if root is None else root
    if given is None:
        return None
    place = "the environment variable ENERGAX_DATA" if root is None else "root"
    folder = as_folder(place, given)
    if not is_folder(folder):
        raise DataError(
            f"{place} is {str(given)!r}, which is no folder. Give the folder that holds mnist/, "
            "cifar-10-batches-bin/ and the like, or leave it unset to use the cache."
        )
    return folder


def _find(source: Source, root: str | os.PathLike[str] | None) -> _Place | None:
    base = _data_folder(root)
    if not source.files and not source.folders:
        return _Place("package", Path(__file__).parent)
    if base is not None:
        for folder in (base / name for name in source.folders):
            missing = source.reader.missing(folder)
            if not missing:
                return _Place("folder", folder)
            # A part of a data set is somebody's mistake; passing on to the cache would hide it.
            if len(missing) < len(source.reader.required()):
                raise DataError(
                    f"{source.name}: {folder} lacks {', '.join(missing)}. Add what is missing or remove the folder."
                )
        if source.archive and is_file(base / source.files[0].name):
            return _Place("archive", base / source.files[0].name)
    cached = _cached(source)
    return None if cached is None or source.reader.missing(cached) else _Place("cache", cached)


def _cached(source: Source) -> Path | None:
    """Return the folder in the cache that holds, or would hold, the official files."""
    if not source.files:
        return None
    # An unpacked archive lies under its MD5, so that one from elsewhere never passes for the official one.
    parent = cache_folder() / source.files[0].md5 if source.archive else cache_folder()
    return parent / source.folders[0]


def _ready(
    source: Source, place: _Place | None, root: str | os.PathLike[str] | None, fetch: bool, progress: bool
) -> tuple[Path, str, Mapping[str, str] | None]:
    """Return a folder that can be read, its origin in words and the record of checksums, None if still to be made."""
    if place is not None and place.kind == "package":
        return place.path, "inside the package", {}
    where = "ENERGAX_DATA" if root is None else str(root)  # run records are passed on: no path of this machine
    if place is not None and place.kind == "folder":
        return place.path, f"the folder {place.path.name} of {where}", None
    if place is not None and place.kind == "archive":
        found, most = md5_of(place.path, _most(source)), _most(source)
        unpacked = unpack(place.path, cache_folder() / found, progress=progress, most=most) / source.folders[0]
        missing = source.reader.missing(unpacked)
        if missing:
            raise DataError(
                f"{place.path}: lacks {', '.join(f'{source.folders[0]}/{name}' for name in missing)}. "
                f"Put the official archive from {source.homepage} in its place."
            )
        return (
            unpacked,
            f"unpacked from {place.path.name} of {where}",
            {place.path.name: _verdict(source.files[0], found)},
        )
    if not source.archive or place is None:
        _fetch(source, root, fetch, progress)
    folder = _cached(source)
    assert folder is not None  # a source without files was found in a folder or refused by _fetch
    return folder, "downloaded from an official mirror", {remote.name: _OFFICIAL for remote in source.files}


def _fetch(source: Source, root: str | os.PathLike[str] | None, fetch: bool, progress: bool) -> None:
    """Complete the data set in the cache, or say every place where it was looked for."""
    cache, folder = cache_folder(), _cached(source)
    try:
        if folder is None:
            raise DataError("it has no address for a download.")
        target = cache if source.archive else folder
        stale = [remote.name for remote in source.files if not is_whole(remote, target / remote.name)]
        if stale and not fetch:
            raise DataError(f"not on this machine, and the download of {', '.join(stale)} is switched off.")
        paths = [download(remote, target, progress=progress) for remote in source.files]
        if source.archive:
            unpack(paths[0], folder.parent, progress=progress, most=_most(source))
            paths[0].unlink(missing_ok=True)  # the unpacked files are all that is read from now on
    except DataError as error:
        base = _data_folder(root)
        looked = [str(base / name) for name in source.folders] if base else ["(ENERGAX_DATA is not set)"]
        names = ", ".join(remote.name for remote in source.files) or "its files"
        raise DataError(
            f"{source.name}: {error}\nLooked in: {', '.join([*looked, str(folder or cache)])}.\n"
            f"To get it by hand, download {names} (see {source.homepage}), put "
            f"{'it' if source.archive else 'them'} into "
            f"FOLDER{'' if source.archive else '/' + source.folders[0]} "
            "and set ENERGAX_DATA=FOLDER."
        ) from error


def _most(source: Source) -> int:
    """Ceiling on an archive and on what it unpacks to: images hardly shrink when they are packed."""
    return int(4e6 * source.megabytes) or MOST_BYTES


def _compare(source: Source, folder: Path) -> dict[str, str]:
    """Compare the files in a user's folder with the official checksums, as far as those are known."""
    known = {remote.name: remote.md5 for remote in source.files} | dict(source.plain)
    record = {}
    for name in source.reader.required():
        path = source.reader.locate(folder, name)
        if path is None or not is_file(path):
            continue
        official, found = known.get(path.name), md5_of(path)
        record[name if official is None else path.name] = (
            f"MD5 {found}; the official checksum is known of {source.files[0].name} only"
            if official is None and source.files
            else _verdict(Remote(path.name, official or "", ()), found)
        )
    if source.files and source.reader.count(folder) != source.sizes:
        counted, whole = source.reader.count(folder), source.sizes
        record[folder.name] = f"differs from the official sizes {tuple(whole)}: here {tuple(counted)}"
    return record


def _verdict(remote: Remote, found: str) -> str:
    if found == remote.md5:
        return _OFFICIAL
    return f"differs from the official checksum {remote.md5 or '(none known)'}: MD5 {found}"
