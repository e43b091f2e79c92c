# The images of fedcore: `make image`. docs/images.md says how large they are and why.
#
#   client  what a hospital runs: `fedcore client`, `fedcore agent`, `fedcore probe`
#   server  the coordinating side: `fedcore coordinate`, Prefect, export, registry, report
#   demo    the server with an S3 service and synthetic hospitals, for trials alone
#
# TORCH_INDEX chooses PyTorch: empty takes PyPI's wheel, which brings CUDA; PyTorch's own CPU index
# takes the one without. Both are the version that constraints.txt names.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies before code, so that a new version of fedcore is one small layer more. An empty
# package stands in for fedcore meanwhile.
COPY pyproject.toml constraints.txt ./
RUN touch README.md LICENSE \
 && mkdir fedcore && echo '__version__ = "0"' > fedcore/__init__.py \
 && python -m venv --without-pip /opt/venv
COPY k8s/image/install-extras /usr/local/bin/

FROM build AS client-dependencies
ARG TORCH_INDEX=""
RUN install-extras client,agent

FROM build AS server-dependencies
ARG TORCH_INDEX=""
RUN install-extras server

FROM build AS demo-dependencies
ARG TORCH_INDEX=""
RUN install-extras demo

FROM build AS fedcore
COPY README.md LICENSE ./
COPY fedcore fedcore
COPY flows flows
COPY plans plans
RUN pip --python /opt/venv/bin/python install --no-deps --prefix /opt/fedcore . \
 && python -m compileall -q --invalidation-mode unchecked-hash -s /opt/fedcore -p /opt/venv /opt/fedcore

# What all images share: Python, a user without rights, and nothing that installs or compiles.
FROM python:${PYTHON} AS runtime
RUN pip uninstall --yes --quiet --root-user-action=ignore pip setuptools wheel \
 && rm -rf /usr/local/lib/python3.*/ensurepip /usr/local/lib/python3.*/idlelib \
 && groupadd --gid 10001 fedcore \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /scratch --shell /usr/sbin/nologin fedcore \
 && install --directory --owner=10001 --group=10001 /scratch
# The root may be read-only: everything is compiled, and what is written goes to HOME.
ENV PATH=/opt/venv/bin:$PATH HOME=/scratch PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /scratch
USER 10001:10001
CMD ["fedcore", "--help"]
LABEL org.opencontainers.image.title="fedcore" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM runtime AS demo
COPY --from=demo-dependencies /opt/venv /opt/venv
COPY --from=fedcore /opt/fedcore /opt/venv
ARG VERSION="dev" REVISION="unknown"
LABEL org.opencontainers.image.description="fedcore's synthetic hospitals, for trials" \
      org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION

FROM runtime AS client
COPY --from=client-dependencies /opt/venv /opt/venv
COPY --from=fedcore /opt/fedcore /opt/venv
ARG VERSION="dev" REVISION="unknown"
LABEL org.opencontainers.image.description="The client of a hospital, its agent and its probe" \
      org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION

FROM runtime AS server
COPY --from=server-dependencies /opt/venv /opt/venv
COPY --from=fedcore /opt/fedcore /opt/venv
ARG VERSION="dev" REVISION="unknown"
LABEL org.opencontainers.image.description="The coordinating side of a federation" \
      org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION
