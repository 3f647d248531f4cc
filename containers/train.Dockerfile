# The image of every rule, for Docker and Podman. `containers/build train --engine docker` builds it, from the checkout's root.
ARG BASE=python:3.11-slim-bookworm
# hadolint ignore=DL3006
FROM ${BASE}
COPY containers/train.def containers/train.Dockerfile /opt/prefdist/recipe/
COPY containers/install.sh containers/environment.sh containers/prefdist /opt/prefdist/recipe/
COPY requirements/torch.txt requirements/lock.txt /opt/prefdist/recipe/
RUN --mount=type=bind,source=build/wheels/train,target=/mnt \
    echo train > /opt/prefdist/name \
    && sh /opt/prefdist/recipe/install.sh lock.txt git \
    && /opt/venv/bin/python -m pip check
USER 1000:1000
ENTRYPOINT ["/bin/sh", "-c", ". /opt/prefdist/recipe/environment.sh && exec \"$@\"", "prefdist"]
CMD ["prefdist", "--help"]
