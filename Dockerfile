# The page in a container; docs/hosting.md says how to run it.
#   docker build -t max-whisper .                               for the processor
#   docker build -t max-whisper --build-arg DEVICE=cuda .       PyTorch for CUDA 13 as well
# The Makefile installs and runs it, so that versions and commands are those of a checkout.

ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}
ARG DEVICE=cpu

# MAX links what it compiles with a C compiler.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev make \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /app
ENV PIP_NO_CACHE_DIR=1 XDG_CACHE_HOME=/cache
COPY Makefile requirements.txt constraints.txt ./
# PyTorch for the processor alone is some gigabytes smaller, and has an index of its own. Triton,
# a gigabyte that openai-whisper asks for, is for CUDA.
RUN make .venv/.made \
 && if [ "$DEVICE" = cpu ]; then .venv/bin/python -m pip install --no-deps -c requirements.txt \
      --index-url https://download.pytorch.org/whl/cpu torch; fi \
 && make .venv/.run-ready \
 && if [ "$DEVICE" = cpu ]; then .venv/bin/python -m pip uninstall --yes triton; fi

COPY engines engines
RUN mkdir /cache \
 && useradd --home-dir /cache --no-create-home --no-log-init whisper \
 && make .venv/.default-model-ready \
 && chown -R whisper: /cache

COPY audio_samples audio_samples
COPY assets assets
COPY demo demo
COPY app.py ./

USER whisper
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860
EXPOSE 7860
VOLUME /cache
HEALTHCHECK --start-period=2m CMD [".venv/bin/python", "-c", "import os, urllib.request as http; \
  http.urlopen('http://127.0.0.1:' + os.environ['GRADIO_SERVER_PORT'] + '/health', timeout=10)"]
CMD [".venv/bin/python", "app.py"]
