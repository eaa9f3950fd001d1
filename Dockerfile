# delineate in a container: the command line, for a user without rights, with the packages of
# requirements-image.lock, each checked by its hash. See docs/how-to/container.md.
ARG BASE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS packages
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements-image.lock requirements-torch.txt ./
RUN python3 -m venv /opt/delineate && \
    /opt/delineate/bin/python -m pip install --require-hashes --no-deps -r requirements-image.lock
# The usual build of torch has CUDA's libraries with it; those of an index of CPU builds are a
# tenth of its size.
ARG TORCH_INDEX=""
RUN /opt/delineate/bin/python -m pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
    -r requirements-torch.txt
# A version of Ray, for `predict --engine ray`; empty leaves it out.
ARG RAY=""
RUN [ -z "$RAY" ] || /opt/delineate/bin/python -m pip install "ray==$RAY"
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/delineate/bin/python -m pip install --no-deps --no-build-isolation .

FROM ${BASE}
COPY --from=packages /opt/delineate /opt/delineate
RUN useradd --uid 10001 --create-home delineate
# Caches are written where any user may write, because `--user` is often another one.
ENV PATH=/opt/delineate/bin:$PATH PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib NUMBA_CACHE_DIR=/tmp/cache/numba
USER delineate
WORKDIR /data
ENTRYPOINT ["delineate"]
CMD ["--help"]
