# One image for every process: `anamnesis api` (the default), `anamnesis worker`, the command line.
# Another base works too, if it has python3 (3.11 or newer) with venv:  --build-arg BASE=...
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
# PyTorch's own CPU index: the default one would bring gigabytes of CUDA libraries.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/anamnesis
COPY pyproject.toml ./
# A layer of its own for the largest dependency, in the range that pyproject.toml states.
RUN python3 -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(*(line for line in project["dependencies"] if line.startswith("torch")), sep="\n")' > torch.txt \
    && /opt/anamnesis/bin/pip install --index-url "${TORCH_INDEX_URL}" --requirement torch.txt
COPY README.md LICENSE ./
COPY models models
COPY service service
RUN /opt/anamnesis/bin/pip install '.[signing]'

FROM ${BASE}
RUN groupadd --gid 10001 anamnesis \
    && useradd --no-log-init --uid 10001 --gid anamnesis --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin anamnesis
COPY --from=build /opt/anamnesis /opt/anamnesis
ENV PATH=/opt/anamnesis/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ANAMNESIS_HOST=0.0.0.0 \
    ANAMNESIS_LOG_FORMAT=json
# Nothing is written but to /tmp, so that the root file system may be read-only.
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, ssl, urllib.request; urllib.request.urlopen(('https' if os.environ.get('ANAMNESIS_TLS_CERT') else 'http') + '://127.0.0.1:' + os.environ.get('ANAMNESIS_PORT', '8000') + '/healthz', timeout=2, context=ssl._create_unverified_context())"]
CMD ["anamnesis", "api"]
