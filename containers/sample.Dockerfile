# vLLM, which wants other packages than training does. `containers/build sample --engine docker` builds it, from the checkout's root.
ARG BASE=python:3.11-slim-bookworm
# hadolint ignore=DL3006
FROM ${BASE}
ARG LOCK=sample.txt
COPY containers/sample.def containers/sample.Dockerfile /opt/prefdist/recipe/
COPY containers/install.sh containers/environment.sh containers/prefdist /opt/prefdist/recipe/
COPY requirements/${LOCK} /opt/prefdist/recipe/
RUN --mount=type=bind,source=build/wheels/sample,target=/mnt \
    basename "${LOCK}" .txt > /opt/prefdist/name \
    && sh /opt/prefdist/recipe/install.sh "${LOCK}" git g++ libc6-dev libnuma1
USER 1000:1000
ENTRYPOINT ["/bin/sh", "-c", ". /opt/prefdist/recipe/environment.sh && exec \"$@\"", "prefdist"]
CMD ["prefdist", "--help"]
