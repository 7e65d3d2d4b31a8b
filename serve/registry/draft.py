"""An adapter's copy in the registry before it is a version: copied, completed and validated in a folder of its own."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.core.digests import content_hash
from harness.core.errors import AdapterError
from serve.registry.adapter_files import MANIFEST, copy_adapter
from serve.registry.adapter_version import check_unchanged_since_training
from serve.registry.base_model import BaseModel
from serve.registry.prompt_record import complete_manifest
from serve.registry.validation.adapter import AdapterFacts, validate_adapter
from serve.registry.validation.base_match import ACCEPTED, accept_base


@contextmanager
def validated_draft(
    source: Path, home: Path, base: BaseModel | None, accept: bool, prompt_settings: Mapping[str, str]
) -> Iterator[tuple[Path, AdapterFacts]]:
    """Copy an adapter to a temporary folder in ``home`` and validate the copy; yield the copy and its properties.

    The copy is deleted after the block unless it was moved elsewhere.

    Args:
        source: the adapter's folder.
        home: the folder of its name in the registry.
        base: the model that it must fit, as in ``validate_adapter``.
        accept: accept the adapter for ``base`` even if it names another base.
        prompt_settings: as in ``complete_manifest``.

    Raises:
        AdapterError: the adapter cannot be served; the message names ``source``, not the copy.
    """
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=home))
    try:
        copy_adapter(source, draft)
        if accept and base is not None:
            accept_base(draft, base)
        complete_manifest(source, draft, prompt_settings)
        facts = validate_adapter(draft, base)
        check_unchanged_since_training(draft)
        yield draft, facts
    except AdapterError as error:
        raise type(error)(str(error).replace(str(draft), str(source))) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def install_draft(draft: Path, name: str, home: Path) -> Path:
    """Move a validated draft to its version's folder; for a registered version replace only its records.

    Args:
        name: the adapter's name, for messages.
        home: the folder of that name in the registry.

    Returns:
        The version's folder.

    Raises:
        AdapterError: the version is registered, but its copy there is damaged.
    """
    version = content_hash(draft)[:12]
    folder = home / version
    if folder.exists():
        if content_hash(folder)[:12] != version:
            raise AdapterError(f"{name}@{version}: the registered copy is damaged; remove it and add it again")
        for record in (MANIFEST, ACCEPTED):  # not part of the content hash, so they may have changed
            if (draft / record).exists():
                os.replace(draft / record, folder / record)
    else:
        draft.chmod(stat.S_IMODE(home.stat().st_mode))  # mkdtemp grants access to the owner only
        os.replace(draft, folder)
    return folder
