# One image for every service of docker-compose.yml; what a container does is its command (deploy/).
FROM python:3.11-slim-bookworm

# A wheel index for torch: the CPU build by default; for CUDA 13.0 build with
# --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_VERSION=2.13.0
ARG TORCHVISION_VERSION=0.28.0

# Volumes take over the owner of the folder they are mounted on, so these exist and belong to the user.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp app \
 && install -d -o app -g app /own /trust /enrol /runs /workplace

# Layers from the largest and most lasting to the smallest: a change of code rebuilds only the last one.
RUN pip install --no-cache-dir --retries 2 --extra-index-url "$TORCH_INDEX" \
    "torch==$TORCH_VERSION" "torchvision==$TORCHVISION_VERSION"
COPY deploy/requirements.txt /requirements.txt
RUN pip install --no-cache-dir --requirement /requirements.txt

ENV HOME=/tmp \
    PYTHONPATH=/app \
    COLUMNS=140 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    FLWR_HOME=/tmp/flwr \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 \
    FED_ASI_RUNS_DIR=/runs \
    FED_ASI_WORKPLACE_DIR=/workplace

WORKDIR /app
COPY pyproject.toml README.md ./
COPY fed_asi fed_asi
COPY clients clients
COPY server server
COPY deploy deploy
COPY experiments/fleets experiments/fleets
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . && python -m compileall -q fed_asi deploy

USER app
CMD ["python", "-c", "print('start me with: docker compose up --build')"]
