# Two images: `serving` (an API process and the command line, without torch) and `full` (everything,
# the default):  docker build --target serving -t anamnesis:serving .
# Another base image works too if it has python3 (3.11 or newer) with venv:  --build-arg BASE=...
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS requirements
WORKDIR /src
COPY pyproject.toml ./
# The dependencies of each image are in layers of their own, which a change of the sources keeps.
RUN python3 -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
extras = project["optional-dependencies"]; \
torch = [line for line in extras["train"] if line.startswith("torch")]; \
write = lambda name, *parts: open(name, "w").write("\n".join(sum(parts, []))); \
write("serving.txt", project["dependencies"], extras["serve"], extras["signing"]); \
write("torch.txt", torch); write("train.txt", extras["train"])'

FROM ${BASE} AS serving-build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/anamnesis
COPY --from=requirements /src/serving.txt ./
RUN /opt/anamnesis/bin/pip install --requirement serving.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY anamnesis anamnesis
COPY models models
COPY service service
RUN /opt/anamnesis/bin/pip install --no-deps .

FROM ${BASE} AS full-build
# PyTorch comes from its CPU index: the default index adds gigabytes of CUDA libraries. For a GPU:
# --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu128
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/anamnesis
COPY --from=requirements /src/torch.txt ./
RUN /opt/anamnesis/bin/pip install --index-url "${TORCH_INDEX_URL}" --requirement torch.txt
COPY --from=requirements /src/serving.txt /src/train.txt ./
RUN /opt/anamnesis/bin/pip install --requirement serving.txt --requirement train.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY anamnesis anamnesis
COPY models models
COPY service service
RUN /opt/anamnesis/bin/pip install --no-deps .

FROM ${BASE} AS process
RUN groupadd --gid 10001 anamnesis \
    && useradd --no-log-init --uid 10001 --gid anamnesis --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin anamnesis
ENV PATH=/opt/anamnesis/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ANAMNESIS_HOST=0.0.0.0 \
    ANAMNESIS_LOG_FORMAT=json
# The process writes only to /tmp, so that the root file system may be read-only.
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["anamnesis", "ready"]
CMD ["anamnesis", "api"]

FROM process AS serving
COPY --from=serving-build /opt/anamnesis /opt/anamnesis
USER 10001:10001

FROM process AS full
COPY --from=full-build /opt/anamnesis /opt/anamnesis
USER 10001:10001
