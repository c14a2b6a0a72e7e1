# One image for every process of the system; what it runs is the command (docker-compose.yml, deploy/).
# Only what a service needs goes in: the runtime part of requirements.lock, with its hashes, and the code.

FROM python:3.11-slim AS packages
WORKDIR /build
COPY requirements.lock ops/runtime_lock.py ./
RUN python runtime_lock.py requirements.lock > runtime.lock \
 && python -m venv /opt/yike \
 && /opt/yike/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r runtime.lock

FROM python:3.11-slim
ENV PATH=/opt/yike/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app
# The folders are what volumes are mounted on: a new volume takes over their owner.
RUN useradd --system --uid 10001 --no-create-home --home-dir /app yike \
 && mkdir -p /app /keys /sms && chown yike /keys /sms \
 && printf '#!/bin/sh\nexec python -m ops.cli "$@"\n' > /usr/local/bin/yike && chmod 755 /usr/local/bin/yike
COPY --from=packages /opt/yike /opt/yike
WORKDIR /app
COPY shared shared
COPY services services
COPY ops ops
USER yike
CMD ["yike", "--help"]
