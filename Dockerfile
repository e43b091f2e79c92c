# The images of fedcore: `make image`. docs/images.md says how large they are, and why.
#
#   client  what a hospital runs: `fedcore client`, `fedcore agent`, `fedcore probe`
#   site    the same, and `fedcore site import`, `report`, `check` and `prepare`
#   server  the coordinating side: `fedcore coordinate`, Prefect, export, registry, report
#   demo    for trials alone: an S3 service and synthetic hospitals
#
# Site and server are the client and a layer more, demo is the server and a layer more, so that
# what they share is stored once.
#
# EXTRAS is what the client has beside training: agent, and ckks for plans that encrypt.
#
# TORCH_INDEX chooses PyTorch: empty takes PyPI's wheel, which brings CUDA; PyTorch's own CPU index
# takes the one without. Both are the version that constraints.txt names.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies before code, so that a new version of fedcore is one small layer. An empty package
# stands in for it meanwhile.
COPY pyproject.toml constraints.txt ./
RUN touch README.md LICENSE \
 && mkdir fedcore && echo '__version__ = "0"' > fedcore/__init__.py \
 && python -m venv --without-pip /opt/venv
COPY k8s/image/install-extras /usr/local/bin/

FROM build AS fedcore
COPY README.md LICENSE ./
COPY fedcore fedcore
COPY flows flows
COPY plans plans
RUN pip --python /opt/venv/bin/python install --no-deps --prefix /opt/fedcore . \
 && python -m compileall -q --invalidation-mode unchecked-hash -s /opt/fedcore -p /opt/venv /opt/fedcore

FROM build AS client-dependencies
ARG TORCH_INDEX=""
ARG EXTRAS=agent
RUN install-extras client,${EXTRAS}

FROM client-dependencies AS site-dependencies
RUN install-extras site

FROM client-dependencies AS server-dependencies
RUN install-extras server

FROM server-dependencies AS demo-dependencies
RUN install-extras demo

# What all share: Python, a user without rights, and nothing that installs, compiles or is setuid.
FROM python:${PYTHON} AS runtime
RUN pip uninstall --yes --quiet --root-user-action=ignore pip setuptools wheel \
 && rm -rf /usr/local/lib/python3.*/ensurepip /usr/local/lib/python3.*/idlelib \
 && groupadd --gid 10001 fedcore \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /scratch --shell /usr/sbin/nologin fedcore \
 && install --directory --owner=10001 --group=10001 /scratch \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# The root may be read-only: everything is compiled, and what is written goes to HOME.
ENV PATH=/opt/venv/bin:$PATH HOME=/scratch PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /scratch
USER 10001:10001
CMD ["fedcore", "--help"]
ARG VERSION="dev" REVISION="unknown"
LABEL org.opencontainers.image.title="fedcore" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION

FROM runtime AS client
LABEL org.opencontainers.image.description="The client of a hospital, its agent and its probe"
COPY --from=client-dependencies /opt/venv /opt/venv
COPY --from=fedcore /opt/fedcore /opt/venv

FROM client AS site
LABEL org.opencontainers.image.description="What a hospital imports and prepares its scans with"
COPY --from=site-dependencies /opt/added /opt/venv

FROM client AS server
LABEL org.opencontainers.image.description="The coordinating side of a federation"
COPY --from=server-dependencies /opt/added /opt/venv

FROM server AS demo
LABEL org.opencontainers.image.description="An S3 service and synthetic hospitals, for trials"
COPY --from=demo-dependencies /opt/added /opt/venv
