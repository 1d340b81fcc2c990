# The server, for linux/amd64 and linux/arm64.
#
#   docker build -t unison-audio .
#   docker build -t unison-audio:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .

FROM python:3.12.8-slim-bookworm AS build
# PyPI's own wheels of PyTorch for amd64 bring CUDA along, several gigabytes of it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/unison-audio
WORKDIR /source
COPY constraints.txt ./
RUN /opt/unison-audio/bin/pip install --constraint constraints.txt --index-url "$TORCH_INDEX" torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/unison-audio/bin/pip install --constraint constraints.txt '.[server,wyoming]'

FROM python:3.12.8-slim-bookworm
COPY --from=build /opt/unison-audio /opt/unison-audio
RUN useradd --system --uid 10001 --create-home --home-dir /data unison
ENV PATH=/opt/unison-audio/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    UNISON_AUDIO_CACHE=/data/cache \
    HF_HOME=/data/huggingface
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000 10200
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["unison-audio"]
CMD ["serve", "--host", "0.0.0.0", "--voices", "/data/voices", "--wyoming", "10200", "--wyoming-host", "0.0.0.0"]
