"""An artefact made ready to be pushed: its parcel and its card."""

from pathlib import Path

from prefdist.hub.cards import card
from prefdist.hub.measured import measured
from prefdist.hub.origins import licence, origins_of
from prefdist.hub.parcel import Parcel, check_name, pack
from prefdist.paths import project_root


def post(folder: Path, repo: str, *, adapter: bool, base: str | None, given: str | None) -> tuple[Parcel, str]:
    """Parcel and card of an artefact of the checkout; `given` is a licence. UserError as in what it calls."""
    check_name(repo)
    root = project_root()
    parcel = pack(folder, adapter=adapter, base=base)
    origins = origins_of(parcel.record, root)
    of = licence(origins, root, is_data=parcel.kind == "dataset", given=given)
    found = [] if parcel.kind == "dataset" else measured(parcel.record, root)
    return parcel, card(parcel, repo, of, origins, found, base)
