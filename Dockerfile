# Builds the kernel where there is a C compiler, and runs it in an image without one, without pip,
# and without headers.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) --tag kvatlas .
#
# For a package index of your own: --secret id=pip,src=$HOME/.config/pip/pip.conf
ARG BASE=docker.io/library/python:3.12-slim

FROM ${BASE} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /source
COPY requirements.lock requirements-dev.lock ./
# What the service needs, as locked: wheels only, and nothing that nobody checked.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /kvatlas && \
    python -m pip --python /kvatlas/bin/python install --no-cache-dir --no-compile \
        --only-binary :all: --no-deps --require-hashes --requirement requirements.lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip install --no-cache-dir --no-compile --only-binary :all: --no-deps \
        --constraint requirements-dev.lock --target /tools setuptools cython
COPY pyproject.toml setup.py README.md LICENSE ./
COPY client client
COPY indexer indexer
COPY kvevents kvevents
COPY proto proto
COPY service service
COPY store store
COPY tokenization tokenization
# -g0: debug symbols would be three quarters of the kernel.
RUN CFLAGS=-g0 PYTHONPATH=/tools python -m pip wheel --no-deps --no-index --no-build-isolation \
        --wheel-dir /wheel . && \
    python -m pip --python /kvatlas/bin/python install --no-cache-dir --no-compile --no-deps \
        --no-index /wheel/*.whl
# Without a compiled kernel there is no image: it would be many times slower.
RUN /kvatlas/bin/python -P -c "import indexer; assert indexer.COMPILED, 'no compiled kernel'"
COPY deploy/image deploy/image
RUN /kvatlas/bin/python -P deploy/image/trim.py && /kvatlas/bin/python -P deploy/image/sizes.py

FROM ${BASE}
RUN rm -rf /usr/include /usr/local/include /usr/local/bin/pip* \
        /usr/local/lib/python3.*/site-packages/* /usr/local/lib/python3.*/ensurepip && \
    groupadd --system --gid 65532 kvatlas && \
    useradd --system --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent kvatlas && \
    install --directory --owner 65532 --group 65532 /var/lib/kvatlas /var/cache/huggingface
COPY --from=build /kvatlas /kvatlas
USER 65532:65532
# The root file system may be read-only: a volume goes where something is to be kept, at
# /var/lib/kvatlas for snapshots, at /var/cache/huggingface for tokenizers from the hub.
ENV PATH=/kvatlas/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/var/cache/huggingface
# gRPC, metrics, and the events of pods that connect here. Administration is on loopback.
EXPOSE 50051 9464 5557
# For docker, which has no gRPC probe: each run starts a process and takes 0.1 s of CPU. In
# Kubernetes use the probe `grpc: {port: 50051}`, which starts none.
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s CMD ["kvatlas", "health"]
ENTRYPOINT ["kvatlas"]
CMD ["serve", "--bind", "tcp://*:5557"]
# Last, because they change with each build. The address of the source is a --label, if there is one.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kvatlas" \
      org.opencontainers.image.description="Which pod already holds how much of a prompt's prefix in its KV cache?" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
