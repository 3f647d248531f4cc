"""The manifest of a folder of results."""

import json
from pathlib import Path
from typing import Any

from prefdist.artefacts import provenance


def write_manifest(spec: dict[str, Any], inputs: dict[str, Path], file: Path) -> None:
    """Where every number came from: artefacts with their config, code and content digests, and the environment."""
    artefacts = {}
    for role, folder in sorted(inputs.items()):
        record = provenance(folder)
        kept = ("stage", "name", "digest", "code", "inputs", "outputs")
        artefacts[role] = {"path": str(folder), **{key: record[key] for key in kept}}
    environments = {json.dumps(provenance(folder)["environment"], sort_keys=True) for folder in inputs.values()}
    manifest = {"spec": spec, "environments": [json.loads(text) for text in environments], "artefacts": artefacts}
    file.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
