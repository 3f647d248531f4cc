"""Artefacts on the Hugging Face hub: push with a generated card, pull with every digest checked.

parcel.py: which files go, and the manifest that travels with them; origins.py: models, datasets and licences behind an
artefact; cards.py: the card; measured.py: its rows of released tables; transfer.py: the network. Models of others come by
data/hub.py.
"""
