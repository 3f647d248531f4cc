"""Push artefacts to the Hugging Face hub, and pull them."""

import argparse
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    hub = commands.add_parser("hub", help="models, adapters and tables on the Hugging Face hub: push, pull, card")
    actions = hub.add_subparsers(required=True, metavar="action")

    push = actions.add_parser("push", help="push a finished artefact with a generated card; a new repository is private")
    push.add_argument("--public", action="store_true", help="make the repository public")
    push.set_defaults(call=_push)

    card = actions.add_parser("card", help="print the card that a push would write; no network")
    card.set_defaults(call=_card)

    for action in (push, card):
        action.add_argument("artefact", type=Path, help="its folder, as `prefdist plan --artefacts` lists it")
        action.add_argument("repo", help="owner/name")
        action.add_argument("--adapter", action="store_true", help="the low-rank adapter alone")
        action.add_argument("--base", help="of an adapter: the model of the hub that it belongs to")
        action.add_argument("--license", help="the hub's identifier; default: what follows from what it was made from")

    pull = actions.add_parser("pull", help="fetch an artefact that was pushed, check every digest, put it in place")
    pull.add_argument("repo", help="owner/name")
    pull.add_argument("--dataset", action="store_true", help="tables instead of a model or adapter")
    pull.add_argument("--revision", default="main", help="commit, branch or tag (main)")
    pull.add_argument("--out", type=Path, help="another folder than the artefact's place in this checkout")
    pull.set_defaults(call=_pull)


def _push(options: argparse.Namespace) -> None:
    from prefdist.hub.post import post
    from prefdist.hub.transfer import push

    parcel, card = post(options.artefact, options.repo, adapter=options.adapter, base=options.base, given=options.license)
    message = f"prefdist: {parcel.record['stage']}/{parcel.record['name']}-{parcel.record['digest']}"
    commit = push(parcel, options.repo, card, public=options.public, message=message)
    print(f"{options.repo}: {parcel.kind}, {len(parcel.files) + len(parcel.made) + 2} files, commit {commit}")


def _card(options: argparse.Namespace) -> None:
    from prefdist.hub.post import post

    print(post(options.artefact, options.repo, adapter=options.adapter, base=options.base, given=options.license)[1], end="")


def _pull(options: argparse.Namespace) -> None:
    from prefdist.hub.transfer import pull
    from prefdist.paths import project_root

    out = options.out.resolve() if options.out else None
    print(pull(options.repo, project_root(), dataset=options.dataset, revision=options.revision, out=out))
