# Builds the package where there is a C compiler, and runs it in an image without one.
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY client client
COPY indexer indexer
COPY kvevents kvevents
COPY proto proto
COPY service service
COPY store store
COPY tokenization tokenization
RUN python -m venv /kvatlas && /kvatlas/bin/pip install --no-cache-dir '.[traces]'

FROM python:3.12-slim
COPY --from=build /kvatlas /kvatlas
RUN useradd --system --uid 65532 --no-create-home kvatlas
USER 65532:65532
ENV PATH=/kvatlas/bin:$PATH PYTHONUNBUFFERED=1
# gRPC, metrics, and the events of pods that connect here. Administration is on loopback.
EXPOSE 50051 9464 5557
HEALTHCHECK --interval=10s --timeout=3s CMD ["kvatlas", "health"]
ENTRYPOINT ["kvatlas"]
CMD ["serve", "--bind", "tcp://*:5557"]
