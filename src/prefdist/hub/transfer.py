"""Push a parcel to the hub as one repository, and pull one into a folder. The only part that uses the network.

The token is huggingface_hub's: HF_TOKEN, or what `hf auth login` stored. It is never read, passed or printed here.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefdist.errors import UserError
from prefdist.hub.parcel import CARD, MANIFEST, Parcel, check, check_name, read_manifest
from prefdist.paths import ARTEFACTS

_OWN = {CARD, MANIFEST, ".gitattributes"}


def push(parcel: Parcel, repo: str, card: str, *, public: bool, message: str) -> str:
    """Make `repo` (owner/name) hold exactly this parcel, its card and its manifest; returns the commit.

    A new repository is private unless `public`. UserError if the repository is there with the other visibility, or holds what
    prefdist did not push, or the hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _said(repo), tempfile.TemporaryDirectory() as temporary:
        _open(api, parcel, repo, public)
        folder = Path(temporary)
        for name, file in parcel.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(file.resolve(), folder / name)
        for name, text in {**parcel.made, MANIFEST: parcel.manifest(), CARD: card}.items():
            (folder / name).write_text(text, encoding="utf-8")
        done = api.upload_folder(
            repo_id=repo, repo_type=parcel.repo_type, folder_path=folder, commit_message=message, delete_patterns=["*"]
        )
    return str(done.oid)


def _open(api: Any, parcel: Parcel, repo: str, public: bool) -> None:
    """Create the repository, or check that what is there may be replaced."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.repo_info(repo, repo_type=parcel.repo_type)
    except RepositoryNotFoundError:
        api.create_repo(repo, repo_type=parcel.repo_type, private=not public)
        return
    if bool(info.private) == public:
        is_now = "private" if info.private else "public"
        how = "leave out --public" if info.private else "say --public"
        raise UserError(f"{repo} is {is_now} already: {how}, or change it on its page of the hub")
    there = {file.rfilename for file in info.siblings or []}
    if there - _OWN and MANIFEST not in there:
        raise UserError(f"{repo} holds {sorted(there - _OWN)[0]}, which prefdist did not push; choose another name")


def pull(repo: str, root: Path, *, dataset: bool, revision: str, out: Path | None) -> Path:
    """Fetch one commit of `repo`, check it, and put it in place; returns the folder, relative to `root` or `out` itself.

    An artefact's place is the one that its identity gives it in this checkout, where the workflow finds it; an adapter, which
    is a part of one, needs `out`. What is there with the same content is kept.
    UserError if something else is there, a digest differs, or the hub does not give it.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    check_name(repo)
    kind = "dataset" if dataset else "model"
    with _said(repo), _beside(out.parent if out else root / ARTEFACTS) as folder:
        commit = HfApi().repo_info(repo, repo_type=kind, revision=revision).sha
        where = f"{repo}, commit {commit}"
        hf_hub_download(repo, MANIFEST, repo_type=kind, revision=commit, local_dir=folder)
        manifest = read_manifest((folder / MANIFEST).read_text(), where)
        wanted = [*manifest["files"], CARD]
        snapshot_download(repo, repo_type=kind, revision=commit, local_dir=folder, allow_patterns=wanted)
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the download's own notes, which hold times
        check(folder, manifest, where)
        if out is None and manifest["kind"] == "adapter":
            raise UserError(f"{repo} is an adapter, which has no place among artefacts; give --out")
        target = out or root / ARTEFACTS / manifest["stage"] / f"{manifest['name']}-{manifest['digest']}"
        _place(folder, target, manifest, where)
    return target if out else target.relative_to(root)


def _place(folder: Path, target: Path, manifest: dict[str, Any], where: str) -> None:
    if target.exists():
        try:
            check(target, manifest, str(target))
        except UserError as error:
            raise UserError(f"{target} is there and is not what {where} has ({error}); move it away first") from error
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(folder, target)


@contextmanager
def _beside(parent: Path) -> Iterator[Path]:
    """An empty folder on the disk of the target, gone at the end unless it was renamed into place."""
    folder = parent / f".pull.{uuid.uuid4().hex[:12]}.tmp"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _said(repo: str) -> Iterator[None]:
    """What can go wrong on the way, in one sentence."""
    from huggingface_hub.errors import HFValidationError, HTTPError, OfflineModeIsEnabled

    try:
        yield
    except (HTTPError, HFValidationError, OfflineModeIsEnabled, OSError, RuntimeError, ValueError) as error:
        # An upload's error stands behind a RuntimeError, one of refused metadata behind a ValueError.
        from_hub = isinstance(error, HTTPError | HFValidationError | OfflineModeIsEnabled | OSError)
        if not from_hub and not isinstance(error.__cause__, HTTPError | OSError):
            raise
        lines = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
        reason = (lines[0] if lines else type(error).__name__).rstrip(".")
        raise UserError(f"{repo}: {reason}; is its name right, the hub in reach, and `hf auth login` done?") from error
